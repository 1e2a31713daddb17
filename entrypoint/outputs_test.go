package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

func TestOutputFlags(t *testing.T) {
	three := 3
	for rule, c := range map[string]struct {
		args []string
		want core.Outputs
	}{
		"a path alone is a directory":  {[]string{"-o", "out"}, core.Outputs{RootDir: "out"}},
		"a dash alone is a tar":        {[]string{"-o", "-"}, core.Outputs{RootTar: "-"}},
		"local":                        {[]string{"-o", "type=local,dest=d"}, core.Outputs{RootDir: "d"}},
		"tar":                          {[]string{"-o", "type=tar,dest=f"}, core.Outputs{RootTar: "f"}},
		"oci is a tar":                 {[]string{"-o", "type=oci,dest=f"}, core.Outputs{OCITar: "f"}},
		"oci with tar=false is a dir":  {[]string{"-o", "type=oci,tar=false,dest=d"}, core.Outputs{OCILayout: "d"}},
		"docker":                       {[]string{"-o", "type=docker,dest=f,name=a:1"}, core.Outputs{DockerTar: "f", Destinations: []string{"a:1"}, NoPush: true}},
		"a name pushes nothing":        {[]string{"-o", "type=oci,dest=f,name=a:1"}, core.Outputs{OCITar: "f", Destinations: []string{"a:1"}, NoPush: true}},
		"an image is not pushed":       {[]string{"-o", "type=image,name=a:1"}, core.Outputs{Destinations: []string{"a:1"}, NoPush: true}},
		"an image is pushed if asked":  {[]string{"-o", "type=image,push=true,name=a:1"}, core.Outputs{Destinations: []string{"a:1"}}},
		"a registry":                   {[]string{"-o", "type=registry,name=h.example/a:1"}, core.Outputs{Destinations: []string{"h.example/a:1"}}},
		"several":                      {[]string{"-o", "d", "--rootfs-tar", "-", "--tar-path", "t", "-d", "a"}, core.Outputs{RootDir: "d", RootTar: "-", DockerTar: "t", Destinations: []string{"a"}}},
		"compression with a level":     {[]string{"-o", "type=oci,dest=f,compression=zstd,compression-level=3"}, core.Outputs{OCITar: "f", Compression: "zstd", CompressionLevel: &three}},
		"timestamps":                   {[]string{"-o", "type=oci,dest=f,rewrite-timestamp=true"}, core.Outputs{OCITar: "f", RewriteTimestamp: true}},
		"annotations in buildx's form": {[]string{"-o", "type=oci,dest=f,annotation-index.k=v"}, core.Outputs{OCITar: "f", Annotations: []core.Annotation{{Index: true, Key: "k", Value: "v"}}}},
		"annotations": {
			[]string{"-o", "d", "--annotation", "k=v=w", "--annotation", "manifest[linux/amd64],index-descriptor:a:b=c"},
			core.Outputs{RootDir: "d", Annotations: []core.Annotation{
				{Key: "k", Value: "v=w"}, {Platform: "linux/amd64", Key: "a:b", Value: "c"}, {Index: true, Descriptor: true, Key: "a:b", Value: "c"},
			}},
		},
	} {
		t.Run(rule, func(t *testing.T) {
			s, err := parse(t, nil, c.args...)
			require.NoError(t, err)
			if c.want.ImageFormat = "oci"; c.want.Compression == "" {
				c.want.Compression = "gzip"
			}
			require.Equal(t, c.want, s.Outputs)
		})
	}
}

func TestOutputFlagsThatAreRefused(t *testing.T) {
	for text, args := range map[string][]string{
		`unknown type "x"`:                     {"-o", "type=x,dest=f"},
		`unknown key "frobnicate"`:             {"-o", "type=local,dest=d,frobnicate=1"},
		"dest= is missing":                     {"-o", "type=tar"},
		"type= is missing":                     {"-o", "dest=f"},
		"two outputs go to standard output":    {"--rootfs-tar", "-", "--tar-path", "-"},
		"two outputs of type tar":              {"-o", "type=tar,dest=a", "-o", "type=tar,dest=b"},
		"a directory cannot be written to":     {"--rootfs-dir", "-"},
		"from 0 to 9":                          {"-o", "d", "--compression-level", "10"},
		"from 1 to 22":                         {"-o", "d", "--compression", "zstd", "--compression-level", "23"},
		"no level without compression":         {"-o", "d", "--compression", "none", "--compression-level", "1"},
		"has no annotations":                   {"-o", "d", "--image-format", "docker", "--annotation", "a=b"},
		"unknown kind":                         {"-o", "d", "--annotation", "layer:a=b"},
		"an index has no platform":             {"-o", "d", "--annotation", "index[linux/amd64]:a=b"},
		"write KEY=VALUE":                      {"-o", "d", "--annotation", "a"},
		"there is no Docker engine":            {"-o", "type=docker"},
		"nowhere to put the image":             {"--compression", "zstd"},
		"no media type for --compression zstd": {"-d", "a", "--image-format", "docker", "--compression", "zstd"},
		"names of what is not pushed":          {"-d", "x", "-o", "type=oci,dest=f,name=y"},
		"has no name":                          {"-o", "type=local,dest=d,name=a"},
		"rewrite-timestamp":                    {"-o", "type=oci,dest=f,rewrite-timestamp=perhaps"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := parse(t, nil, args...)
			require.ErrorContains(t, err, text)
			var e *core.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, core.KindUsage, e.Kind)
		})
	}
}

func TestSourceDateEpochComesFromTheEnvironment(t *testing.T) {
	env := map[string]string{"SOURCE_DATE_EPOCH": "5"}
	s, err := parse(t, env, "-o", "d")
	require.NoError(t, err)
	require.Equal(t, "5", s.BuildArgs["SOURCE_DATE_EPOCH"])
	s, err = parse(t, env, "-o", "d", "--build-arg", "SOURCE_DATE_EPOCH=6")
	require.NoError(t, err)
	require.Equal(t, "6", s.BuildArgs["SOURCE_DATE_EPOCH"])
}
