package core

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatAContextIs(t *testing.T) {
	for value, want := range map[string]struct {
		kind contextKind
		rest string
	}{
		"":                                     {contextDir, ""},
		"dir":                                  {contextDir, "dir"},
		"./dir":                                {contextDir, "./dir"},
		"/abs/a:b":                             {contextDir, "/abs/a:b"},
		"dir:///abs":                           {contextDir, "/abs"},
		"-":                                    {contextStream, ""},
		"tar://stdin":                          {contextStream, ""},
		"tar:///a/b.tgz":                       {contextTar, "/a/b.tgz"},
		"docker-image://a":                     {contextImage, "a"},
		"oci-layout:///a:t":                    {contextLayout, "/a:t"},
		"target:x":                             {contextStage, "target:x"},
		"https://x.test/y.git":                 {contextRemote, "https://x.test/y.git"},
		"http://x.test/y.tgz":                  {contextRemote, "http://x.test/y.tgz"},
		"git@x.test:y":                         {contextRemote, "git@x.test:y"},
		"ssh://git@x.test/y":                   {contextRemote, "ssh://git@x.test/y"},
		"github.com/a/b":                       {contextRemote, "github.com/a/b"},
		"git://x.test/y#main":                  {contextRemote, "git://x.test/y#main"},
		"git://x.test/y#refs/heads/m":          {contextRemote, "https://x.test/y.git#refs/heads/m"},
		"git://x.test/y.git/#refs/heads/m#abc": {contextRemote, "https://x.test/y.git#abc"},
		"git://u:p@github.com/a/b":             {contextRemote, "https://u:p@github.com/a/b.git"},
	} {
		kind, rest, err := contextOf(value)
		require.NoError(t, err, value)
		require.Equal(t, want.kind, kind, value)
		require.Equal(t, want.rest, rest, value)
	}
}

func TestContextsThatAreRefused(t *testing.T) {
	for value, text := range map[string]string{
		"s3://bucket/":                 "s3://BUCKET/ARCHIVE",
		"gs://bucket":                  "gs://BUCKET/ARCHIVE",
		"ftp://x.test/y":               "unknown scheme ftp://",
		"http://":                      "cannot be parsed",
		"dir://":                       "nothing is named",
		"tar://":                       "nothing is named",
		"https://x.test/y.git?ref=a&x": "x",
	} {
		require.ErrorContains(t, CheckContext(value, false), text, value)
		require.ErrorContains(t, CheckContext(value, true), text, value)
	}
	for _, value := range []string{"-", "tar://stdin", "tar:///x"} {
		require.NoError(t, CheckContext(value, false))
		require.Error(t, CheckContext(value, true))
	}
	for _, value := range []string{"docker-image://x", "oci-layout://x", "target:x"} {
		require.NoError(t, CheckContext(value, true))
		require.ErrorContains(t, CheckContext(value, false), "--build-context")
	}
	err := CheckContext("https://user:pass@x.test/y.git?nonsense=secret", false)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "pass")
}

func TestLayoutParts(t *testing.T) {
	for value, want := range map[string][3]string{
		"/a/b":              {"/a/b", "", ""},
		"/a/b:t":            {"/a/b", "t", ""},
		"/a:b/c":            {"/a:b/c", "", ""},
		"a@sha256:12":       {"a", "", "sha256:12"},
		"/a:b/c:t@sha256:1": {"/a:b/c", "t", "sha256:1"},
	} {
		path, tag, digest := layoutParts(value)
		require.Equal(t, want, [3]string{path, tag, digest}, value)
	}
}
