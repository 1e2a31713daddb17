package syntax

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestValues(t *testing.T) {
	read := map[string]func(string) (string, error){
		"platform": Platform, "host": Host, "ulimit": Ulimit,
		"size": func(s string) (string, error) { n, err := Size(s); return fmt.Sprint(n), err },
	}
	for _, c := range []struct{ kind, text, want, wrong string }{
		{"platform", "linux/aarch64", "linux/arm64", ""},
		{"platform", "linux/arm/v7", "linux/arm/v7", ""},
		{"platform", "a/b/c/d", "", "a/b/c/d"},
		{"host", "db:10.0.0.1", "db:10.0.0.1", ""},
		{"host", " db=[::1] ", "db:::1", ""},
		{"host", "db", "", "write NAME:IP"},
		{"host", "db:name", "", "write NAME:IP"},
		{"host", ":10.0.0.1", "", "write NAME:IP"},
		{"ulimit", " nofile=1:2 ", "nofile=1:2", ""},
		{"ulimit", "files=1", "", "files"},
		{"size", "64m", "67108864", ""},
		{"size", "0", "", "write a size such as 64m"},
		{"size", "much", "", "write a size such as 64m"},
	} {
		got, err := read[c.kind](c.text)
		if c.wrong != "" {
			require.ErrorContains(t, err, c.wrong, c.text)
			continue
		}
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, got)
	}
}

func TestAnnotations(t *testing.T) {
	for text, want := range map[string][]core.Annotation{
		"a=b=c":                 {{Key: "a", Value: "b=c"}},
		" index:a= ":            {{Index: true, Key: "a"}},
		"manifest,index:a=b":    {{Key: "a", Value: "b"}, {Index: true, Key: "a", Value: "b"}},
		"index-descriptor:a=b":  {{Index: true, Descriptor: true, Key: "a", Value: "b"}},
		"manifest[linux/s]:a=b": {{Platform: "linux/s", Key: "a", Value: "b"}},
		"example.org/x:y=z":     {{Key: "example.org/x:y", Value: "z"}},
	} {
		got, err := Annotations(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, wrong := range map[string]string{"a": "write KEY=VALUE", "=b": "write KEY=VALUE", "index[linux/amd64]:a=b": "an index has no platform", "manifest[a/b/c/d]:a=b": "a/b/c/d", "layer:a=b": `unknown kind "layer": use manifest, index, manifest-descriptor or index-descriptor`} {
		_, err := Annotations(text)
		require.ErrorContains(t, err, wrong, text)
	}
}
