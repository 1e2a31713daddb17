package conformance

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Inputs says where a builder finds a prepared case and what it makes.
type Inputs struct {
	// Name keeps cases apart in what builders keep: contexts and cache mounts.
	Name string
	// Dir is the context with the Dockerfile, SecretDir has a file per secret.
	Dir, SecretDir string
	// Dockerfile is its path; "Dockerfile" in Dir where it is empty.
	Dockerfile string
	// Base is the value of ARG BASE; none is given where it is empty.
	Base string
	// Ref is where the image is pushed, to a registry by plain HTTP.
	Ref string
}

func (in Inputs) dockerfile() string {
	if in.Dockerfile == "" {
		return filepath.Join(in.Dir, "Dockerfile")
	}
	return in.Dockerfile
}

// args are the build arguments, in order.
func (o Options) args(in Inputs) []string {
	// A cache mount is told apart by its id alone, which cases share.
	out := []string{"BUILDKIT_CACHE_MOUNT_NS=" + in.Name}
	if in.Base != "" {
		out = append(out, "BASE="+in.Base)
	}
	for _, k := range sortedKeys(o.Args) {
		out = append(out, k+"="+o.Args[k])
	}
	return out
}

// below is a named context's directory.
func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// BuildctlArgs are the arguments after "buildctl --addr …" that build and push.
func (o Options) BuildctlArgs(in Inputs) []string {
	args := []string{"build", "--progress", "plain", "--no-cache", "--frontend", "dockerfile.v0"}
	opt := func(k, v string) { args = append(args, "--opt", k+"="+v) }
	local := func(k, dir string) { args = append(args, "--local", k+"="+dir) }
	local("context", in.Dir)
	local("dockerfile", filepath.Dir(in.dockerfile()))
	opt("filename", filepath.Base(in.dockerfile()))
	output := "type=image,oci-mediatypes=true,push=true,name=" + in.Ref
	for _, k := range sortedKeys(o.Annotations) {
		output += ",annotation." + k + "=" + o.Annotations[k]
	}
	args = append(args, "--output", output)
	for _, a := range o.args(in) {
		args = append(args, "--opt", "build-arg:"+a)
	}
	for _, k := range sortedKeys(o.Labels) {
		opt("label:"+k, o.Labels[k])
	}
	if o.Target != "" {
		opt("target", o.Target)
	}
	if o.Platform != "" {
		opt("platform", o.Platform)
	}
	for _, k := range sortedKeys(o.Secrets) {
		args = append(args, "--secret", "id="+k+",src="+filepath.Join(in.SecretDir, k))
	}
	for _, k := range sortedKeys(o.Contexts) {
		v := o.Contexts[k]
		if strings.Contains(v, "://") {
			opt("context:"+k, strings.ReplaceAll(v, "$BASE", in.Base))
			continue
		}
		local("named-"+k, below(in.Dir, v))
		opt("context:"+k, "local:named-"+k)
	}
	if hosts := sortedKeys(o.Hosts); len(hosts) > 0 {
		for i, h := range hosts {
			hosts[i] = h + "=" + o.Hosts[h]
		}
		opt("add-hosts", strings.Join(hosts, ","))
	}
	if len(o.Ulimits) > 0 {
		opt("ulimit", strings.Join(o.Ulimits, ","))
	}
	if o.ShmSize > 0 {
		opt("shm-size", strconv.FormatInt(o.ShmSize, 10))
	}
	if o.Hostname != "" {
		opt("hostname", o.Hostname)
	}
	if o.Network != "" {
		opt("force-network-mode", o.Network)
	}
	return args
}

// LayerwrightArgs are the same for "layerwright".
func (o Options) LayerwrightArgs(in Inputs) []string {
	args := []string{"build", "--log-format", "plain", "--no-cache", "--context", in.Dir,
		"--dockerfile", in.dockerfile(), "--destination", in.Ref}
	add := func(flag, v string) { args = append(args, "--"+flag, v) }
	for _, a := range o.args(in) {
		add("build-arg", a)
	}
	for _, k := range sortedKeys(o.Labels) {
		add("label", k+"="+o.Labels[k])
	}
	for _, k := range sortedKeys(o.Annotations) {
		add("annotation", k+"="+o.Annotations[k])
	}
	if o.Target != "" {
		add("target", o.Target)
	}
	if o.Platform != "" {
		add("platform", o.Platform)
	}
	for _, k := range sortedKeys(o.Secrets) {
		add("secret", "id="+k+",src="+filepath.Join(in.SecretDir, k))
	}
	for _, k := range sortedKeys(o.Contexts) {
		v := strings.ReplaceAll(o.Contexts[k], "$BASE", in.Base)
		if !strings.Contains(v, "://") {
			v = below(in.Dir, v)
		}
		add("build-context", k+"="+v)
	}
	for _, k := range sortedKeys(o.Hosts) {
		add("add-host", k+":"+o.Hosts[k])
	}
	for _, u := range o.Ulimits {
		add("ulimit", u)
	}
	if o.ShmSize > 0 {
		add("shm-size", fmt.Sprint(o.ShmSize))
	}
	if o.Hostname != "" {
		add("hostname", o.Hostname)
	}
	if o.Network != "" {
		add("network", o.Network)
	}
	return args
}
