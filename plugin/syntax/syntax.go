// Package syntax reads values as people write them for docker and Kaniko: platforms,
// hosts, limits, annotations, build arguments, secrets, ssh agents, outputs, places of
// caches. Flags of the command line and settings of every CI go through it. It owns what
// is accepted and the words for what is not; it refuses to know how a flag or setting is
// called, which is for who asks, and to repeat values that may be secret: such a one is
// named by its number or id.
package syntax

import (
	"errors"
	"fmt"
	"net"
	"path"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/docker/go-units"

	"github.com/layerwright/layerwright/core"
)

// Platform is OS/ARCH[/VARIANT] in its normal form.
func Platform(text string) (string, error) {
	p, err := platforms.Parse(text)
	if err != nil {
		return "", err
	}
	return platforms.Format(platforms.Normalize(p)), nil
}

// Host is NAME:IP of NAME:IP or NAME=IP; an IPv6 address may stand in brackets.
func Host(text string) (string, error) {
	text = strings.TrimSpace(text)
	name, ip, ok := strings.Cut(text, "=")
	if !ok {
		name, ip, ok = strings.Cut(text, ":")
	}
	ip = strings.Trim(ip, "[]")
	if !ok || name == "" || net.ParseIP(ip) == nil {
		return "", errors.New("write NAME:IP")
	}
	return name + ":" + ip, nil
}

// Ulimit is NAME=SOFT[:HARD], as it is written.
func Ulimit(text string) (string, error) {
	text = strings.TrimSpace(text)
	_, err := units.ParseUlimit(text)
	return text, err
}

// Size is a number of bytes, more than 0.
func Size(text string) (int64, error) {
	n, err := units.RAMInBytes(text)
	if err != nil || n <= 0 {
		return 0, errors.New("write a size such as 64m")
	}
	return n, nil
}

// ImagePath is an absolute path of an image, in its normal form, and not the root.
func ImagePath(text string) (string, error) {
	if clean := path.Clean(text); path.IsAbs(text) && clean != "/" {
		return clean, nil
	}
	return "", errors.New("write an absolute path below /")
}

// MinFree is a number of bytes as the engine has it: there 0 is the default, and less
// than 0 nothing.
func MinFree(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	switch {
	case err != nil || n < 0:
		return 0, errors.New("write a size such as 500m")
	case n == 0:
		return -1, nil
	}
	return n, nil
}

var annotationKind = regexp.MustCompile(`^([a-z-]+(?:\[[^\]]*\])?(?:,[a-z-]+(?:\[[^\]]*\])?)*):(.+)$`)

// Annotations are those of [KIND[PLATFORM],…:]KEY=VALUE, one for each kind.
func Annotations(text string) (out []core.Annotation, err error) {
	key, value, ok := strings.Cut(strings.TrimSpace(text), "=")
	kinds := "manifest"
	if m := annotationKind.FindStringSubmatch(key); m != nil {
		kinds, key = m[1], m[2]
	}
	if !ok || key == "" {
		return nil, errors.New("write KEY=VALUE, or index:KEY=VALUE")
	}
	for _, kind := range strings.Split(kinds, ",") {
		kind, platform, _ := strings.Cut(strings.TrimSuffix(kind, "]"), "[")
		if _, err := platforms.Parse(platform); platform != "" && err != nil {
			return nil, err
		}
		kind, descriptor := strings.CutSuffix(kind, "-descriptor")
		switch {
		case kind != "manifest" && kind != "index":
			return nil, fmt.Errorf("unknown kind %q: use manifest, index, manifest-descriptor or index-descriptor", kind)
		case kind == "index" && platform != "":
			return nil, errors.New("an index has no platform")
		}
		out = append(out, core.Annotation{Index: kind == "index", Descriptor: descriptor, Platform: platform, Key: key, Value: value})
	}
	return out, nil
}
