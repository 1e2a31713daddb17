package conformance_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/conformance"
)

// TestCompareSeesEveryKindOfDifference: a comparison that overlooks something
// would pass every case.
func TestCompareSeesEveryKindOfDifference(t *testing.T) {
	old, fresh := time.Unix(1000, 0), time.Unix(3000, 0)
	image := func(change func(*conformance.Image, *conformance.Entry)) *conformance.Image {
		e := conformance.Entry{Type: "0", Mode: 0o644, Sum: "abc", Size: 3, ModTime: old}
		img := &conformance.Image{
			Config:  map[string]any{"config": map[string]any{"User": "app"}, "created": "now"},
			History: []map[string]any{{"created_by": "RUN x", "created": "now"}},
		}
		change(img, &e)
		img.Root = map[string]conformance.Entry{"f": e}
		img.Layers = append(img.Layers, img.Root)
		return img
	}
	want := image(func(*conformance.Image, *conformance.Entry) {})
	for name, c := range map[string]struct {
		change func(*conformance.Image, *conformance.Entry)
		says   string
	}{
		"nothing":     {func(*conformance.Image, *conformance.Entry) {}, ""},
		"creation":    {func(i *conformance.Image, _ *conformance.Entry) { i.Config["created"] = "later" }, ""},
		"config":      {func(i *conformance.Image, _ *conformance.Entry) { i.Config["config"] = map[string]any{} }, "config.config.User"},
		"history":     {func(i *conformance.Image, _ *conformance.Entry) { i.History[0]["created_by"] = "RUN y" }, "history 0"},
		"annotations": {func(i *conformance.Image, _ *conformance.Entry) { i.Annotations = map[string]string{"a": "b"} }, "annotations"},
		"a layer more": {func(i *conformance.Image, _ *conformance.Entry) {
			i.Layers = append(i.Layers, map[string]conformance.Entry{})
		}, "layers: got 2, want 1"},
		"mode":    {func(_ *conformance.Image, e *conformance.Entry) { e.Mode = 0o600 }, "mode: got 0600"},
		"owner":   {func(_ *conformance.Image, e *conformance.Entry) { e.GID = 5 }, "owner: got 0:5"},
		"content": {func(_ *conformance.Image, e *conformance.Entry) { e.Sum = "abd" }, "content"},
		"type":    {func(_ *conformance.Image, e *conformance.Entry) { e.Type = "6" }, "type"},
		"xattr":   {func(_ *conformance.Image, e *conformance.Entry) { e.Xattrs = map[string]string{"user.k": "v"} }, "xattrs"},
		"time":    {func(_ *conformance.Image, e *conformance.Entry) { e.ModTime = old.Add(1) }, "mtime"},
		"a time of the build instead of the input's": {func(_ *conformance.Image, e *conformance.Entry) { e.ModTime = fresh }, "mtime"},
	} {
		t.Run(name, func(t *testing.T) {
			got := conformance.CompareAll(map[string]*conformance.Image{"": image(c.change)}, map[string]*conformance.Image{"": want}, time.Unix(2000, 0))
			if c.says == "" {
				require.Empty(t, got)
				return
			}
			require.Contains(t, strings.Join(got, "\n"), c.says)
		})
	}
	got := conformance.CompareAll(map[string]*conformance.Image{"linux/arm64": want}, map[string]*conformance.Image{"linux/amd64": want}, old)
	require.Len(t, got, 2)
}
