package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"
)

// Side is one builder's image with the moment before that build began: a
// modification time before it comes from the input and must be the same on
// both sides; one after it is the build's own and only has to be so on both.
type Side struct {
	Image *Image
	Began time.Time
}

// Compare lists the differences, one line each, "want" being BuildKit's.
func Compare(got, want Side) []string {
	var d diffs
	d.image(got.Image, want.Image, got.Began, want.Began)
	return d.lines
}

// CompareAll is Compare for what LoadAll gives, each line beginning with its
// platform where there are several. Both builds began after the moment.
func CompareAll(got, want map[string]*Image, began time.Time) []string {
	var d diffs
	for _, p := range sortedKeys(got, want) {
		g, w := got[p], want[p]
		d.where = ""
		if p != "" {
			d.where = p + ": "
		}
		switch {
		case g == nil:
			d.add("an image for this platform is missing")
		case w == nil:
			d.add("got an image for this platform, want none")
		default:
			d.image(g, w, began, began)
		}
	}
	return d.lines
}

func (d *diffs) image(got, want *Image, gotBegan, wantBegan time.Time) {
	began := [2]time.Time{gotBegan, wantBegan}
	if len(got.Annotations)+len(want.Annotations) > 0 && !reflect.DeepEqual(got.Annotations, want.Annotations) {
		d.add("annotations: got %s, want %s", text(got.Annotations), text(want.Annotations))
	}
	d.config(got, want)
	d.history(got, want)
	if g, w := len(got.Layers), len(want.Layers); g != w {
		d.add("layers: got %d, want %d", g, w)
		for i, l := range got.Layers {
			d.add("  got layer %d: %s", i, names(l))
		}
		for i, l := range want.Layers {
			d.add("  want layer %d: %s", i, names(l))
		}
	} else {
		for i := range want.Layers {
			d.files(fmt.Sprintf("layer %d", i), began, got.Layers[i], want.Layers[i])
		}
	}
	d.files("root", began, got.Root, want.Root)
}

type diffs struct {
	where string // before each line
	lines []string
}

func (d *diffs) add(format string, args ...any) {
	d.lines = append(d.lines, d.where+fmt.Sprintf(format, args...))
}

func names(layer map[string]Entry) string {
	ks := sortedKeys(layer)
	if len(ks) > 12 {
		ks = append(ks[:12], fmt.Sprintf("… (%d)", len(layer)))
	}
	return strings.Join(ks, " ")
}

// config compares everything but times, layer digests and history, which are
// compared by what they mean.
func (d *diffs) config(got, want *Image) {
	g, w := maps.Clone(got.Config), maps.Clone(want.Config)
	for _, m := range []map[string]any{g, w} {
		delete(m, "created")
		delete(m, "history")
		delete(m, "rootfs")
	}
	for _, k := range sortedKeys(g, w) {
		if reflect.DeepEqual(g[k], w[k]) {
			continue
		}
		gm, gok := g[k].(map[string]any)
		wm, wok := w[k].(map[string]any)
		if !gok || !wok {
			d.add("config.%s: got %s, want %s", k, text(g[k]), text(w[k]))
			continue
		}
		for _, kk := range sortedKeys(gm, wm) {
			if !reflect.DeepEqual(gm[kk], wm[kk]) {
				d.add("config.%s.%s: got %s, want %s", k, kk, text(gm[kk]), text(wm[kk]))
			}
		}
	}
}

func (d *diffs) history(got, want *Image) {
	for i := range max(len(got.History), len(want.History)) {
		switch {
		case i >= len(got.History):
			d.add("history %d: missing, want %s", i, text(want.History[i]))
		case i >= len(want.History):
			d.add("history %d: got %s, want none", i, text(got.History[i]))
		default:
			g, w := maps.Clone(got.History[i]), maps.Clone(want.History[i])
			delete(g, "created")
			delete(w, "created")
			if !reflect.DeepEqual(g, w) {
				d.add("history %d: got %s, want %s", i, text(g), text(w))
			}
		}
	}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (d *diffs) files(where string, began [2]time.Time, g, w map[string]Entry) {
	for _, n := range sortedKeys(g, w) {
		ge, gok := g[n]
		we, wok := w[n]
		switch {
		case !gok:
			d.add("%s: /%s: missing, want %s", where, n, describe(we))
		case !wok:
			d.add("%s: /%s: got %s, want nothing", where, n, describe(ge))
		default:
			if what := entryDiff(ge, we); what != "" {
				d.add("%s: /%s: %s", where, n, what)
			}
			if t := timeDiff(ge.ModTime, began[0], we.ModTime, began[1]); t != "" {
				d.add("%s: /%s: %s", where, n, t)
			}
		}
	}
}

func describe(e Entry) string {
	return fmt.Sprintf("type %s mode %04o owner %d:%d size %d link %q", e.Type, e.Mode, e.UID, e.GID, e.Size, e.Link)
}

func entryDiff(g, w Entry) string {
	var out []string
	one := func(what string, g, w any) {
		if !reflect.DeepEqual(g, w) {
			out = append(out, fmt.Sprintf("%s: got %v, want %v", what, g, w))
		}
	}
	one("type", g.Type, w.Type)
	one("mode", fmt.Sprintf("%04o", g.Mode), fmt.Sprintf("%04o", w.Mode))
	one("owner", fmt.Sprintf("%d:%d", g.UID, g.GID), fmt.Sprintf("%d:%d", w.UID, w.GID))
	one("size", g.Size, w.Size)
	one("link", g.Link, w.Link)
	one("device", g.Dev, w.Dev)
	one("content", g.Sum, w.Sum)
	one("hardlink", g.hardlinkTo, w.hardlinkTo)
	if len(g.Xattrs)+len(w.Xattrs) > 0 {
		one("xattrs", g.Xattrs, w.Xattrs)
	}
	return strings.Join(out, "; ")
}

func timeDiff(g, gBegan, w, wBegan time.Time) string {
	gOld, wOld := g.Before(gBegan), w.Before(wBegan)
	switch {
	case gOld && wOld && !g.Equal(w):
		return fmt.Sprintf("mtime: got %s, want %s", g.Format(time.RFC3339Nano), w.Format(time.RFC3339Nano))
	case gOld != wOld:
		return fmt.Sprintf("mtime: got %s (build began %s), want %s (build began %s)",
			g.Format(time.RFC3339Nano), gBegan.Format(time.RFC3339Nano), w.Format(time.RFC3339Nano), wBegan.Format(time.RFC3339Nano))
	}
	return ""
}
