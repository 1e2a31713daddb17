package syntax

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

// says puts errors into one text.
func says(errs []error) string { return fmt.Sprint(errors.Join(errs...)) }

func TestBuildArgs(t *testing.T) {
	got, errs := BuildArgs([]string{"A=b=c", " B =1,2", "FROM_ENV", "NOT_SET", "E=", "L=one\ntwo"}, map[string]string{"FROM_ENV": "x"})
	require.Empty(t, errs)
	require.Equal(t, map[string]string{"A": "b=c", "B": "1,2", "FROM_ENV": "x", "E": "", "L": "one\ntwo"}, got)
	_, errs = BuildArgs([]string{"A=b", "=s3cret", "two words=s3cret", "s3cret and more"}, nil)
	require.Len(t, errs, 3)
	require.Contains(t, says(errs), "number 2: write KEY=VALUE")
	require.NotContains(t, says(errs), "s3cret")
}

func TestSSHIsReadAsByBuildx(t *testing.T) {
	env := map[string]string{"SSH_AUTH_SOCK": "/run/agent"}
	for name, c := range map[string]struct {
		given []string
		env   map[string]string
		want  []core.SSH
		err   string
	}{
		"default is the environment's agent": {[]string{"default"}, env, []core.SSH{{ID: "default", Paths: []string{"/run/agent"}}}, ""},
		"any id without a value is too":      {[]string{"x", "y="}, env, []core.SSH{{ID: "x", Paths: []string{"/run/agent"}}, {ID: "y", Paths: []string{"/run/agent"}}}, ""},
		"a socket":                           {[]string{"x=/s"}, nil, []core.SSH{{ID: "x", Paths: []string{"/s"}}}, ""},
		"keys":                               {[]string{"x=/k=1, /l"}, nil, []core.SSH{{ID: "x", Paths: []string{"/k=1", "/l"}}}, ""},
		"no agent in the environment":        {[]string{"default"}, nil, nil, "number 1: no agent is at $SSH_AUTH_SOCK"},
		"no id":                              {[]string{"=/s"}, env, nil, "write default"},
		"one id twice":                       {[]string{"x=/s", "x=/t"}, env, nil, "number 2: two agents"},
		"an empty path":                      {[]string{"x=/s,"}, env, nil, "a path is empty"},
		"the text of a key":                  {strings.Split("-----BEGIN KEY-----\ns3cret", "\n"), nil, nil, "number 2: no agent"},
	} {
		t.Run(name, func(t *testing.T) {
			got, errs := SSH(c.given, c.env)
			if c.err != "" {
				require.Contains(t, says(errs), c.err)
				require.NotContains(t, says(errs), "s3cret")
				return
			}
			require.Empty(t, errs)
			require.Equal(t, c.want, got)
		})
	}
}

func TestSecretsInDockersForm(t *testing.T) {
	env := map[string]string{"TOKEN": "s3cret"}
	all := &Secrets{Env: env}
	require.Empty(t, all.Docker([]string{"id=t,env=TOKEN", "id=f,src=/f", "ID=TOKEN", "type=env,id=k,src=TOKEN", "id=file", `id=c,"src=/a,b"`, "type=file,source=/g,id=g"}))
	require.Equal(t, []core.Secret{{ID: "t", Value: []byte("s3cret")}, {ID: "f", File: "/f"}, {ID: "TOKEN", Value: []byte("s3cret")}, {ID: "k", Value: []byte("s3cret")},
		{ID: "file", File: "file"}, {ID: "c", File: "/a,b"}, {ID: "g", File: "/g"}}, all.List)
	for text, want := range map[string]string{
		"src=x": "number 1: an id is missing", "id=a,env=NOPE": "secret a: the variable NOPE is not set", "id=a,src=x,env=y": "not both",
		"TOKEN=s3cret": `number 1: unknown key "token": use id, src and env`, "id=a,s3cret": "field 2 is not KEY=VALUE", "id=a,type=s3cret": "unknown type: use file or env",
		"id=a,src=": "src= is empty", "": "write id=ID,src=FILE", "id=a\ns3cret": "several lines",
	} {
		errs := (&Secrets{Env: env}).Docker([]string{text})
		require.Contains(t, says(errs), want, text)
		require.NotContains(t, says(errs), "s3cret")
	}
	require.Contains(t, says((&Secrets{}).Docker([]string{"id=a,src=x", "id=a,src=y"})), "two secrets have the id a")
}

func TestSecretsInPairs(t *testing.T) {
	all := &Secrets{Env: map[string]string{"V": "of-v", "LARGE": strings.Repeat("x", MaxSecret+1)}, ReadFile: func(name string) ([]byte, error) {
		if name != "there" {
			return nil, errors.New("there is no such file")
		}
		return []byte("of-file"), nil
	}}
	require.Empty(t, all.Values([]string{" a =x=y, z\n", "empty="}))
	require.Empty(t, all.Variables([]string{"b= V "}))
	require.Empty(t, all.Files([]string{"c=there"}))
	require.Equal(t, []core.Secret{{ID: "a", Value: []byte("x=y, z\n")}, {ID: "empty", Value: []byte{}}, {ID: "b", Value: []byte("of-v")}, {ID: "c", Value: []byte("of-file")}}, all.List)
	require.Contains(t, says(all.Values([]string{"s3cret", "=s3cret", "a=s3cret"})), "number 1: write ID=VALUE\nnumber 2: write ID=VALUE\ntwo secrets have the id a")
	require.Equal(t, "secret d: the variable N is not set\nnumber 2: write ID=VARIABLE\nsecret l: it is larger than 500 KiB", says(all.Variables([]string{"d=N", "e=", "l=LARGE"})))
	require.Equal(t, "secret f: there is no such file", says(all.Files([]string{"f=missing"})))
}

func TestPlacesOfCaches(t *testing.T) {
	for text, want := range map[string][2]string{
		"r.example/c":                     {"r.example/c", ""},
		"me/c":                            {"docker.io/me/c", ""},
		"oci:dir":                         {"oci:dir", ""},
		"type=registry,ref=r.example/o/a": {"r.example/o/a", ""},
		"ref=r.example/o/a:x,mode=max":    {"r.example/o/a/cache", "r.example/o/a:x: results of steps are kept in the repository r.example/o/a/cache"},
		"user/app:buildcache":             {"docker.io/user/app-cache", "user/app:buildcache: results of steps are kept in the repository docker.io/user/app-cache"},
		"type=gha,mode=max":               {"", "type=gha has no effect: results of steps are kept in a registry"},
		`type=registry,"ref=r.example:5000/o/a",` + "mode=max": {"r.example:5000/o/a", ""},
	} {
		repo, note, err := CachePlace(text)
		require.NoError(t, err, text)
		require.Equal(t, want, [2]string{repo, note}, text)
	}
	for text, want := range map[string]string{
		"type=what": `unknown type "what": use registry`, "type=registry": "ref= is missing", "UPPER/c": "lowercase", "a@sha256:" + strings.Repeat("0", 64): "by its tag", "type=registry,x": "field 2", "oci:": "oci:DIR",
	} {
		_, _, err := CachePlace(text)
		require.ErrorContains(t, err, want, text)
	}
	_, err := Repository("r.example/c:1")
	require.ErrorContains(t, err, "without a tag")
}

func TestOutputs(t *testing.T) {
	three := 3
	for text, want := range map[string]core.Outputs{
		"out": {RootDir: "out"}, "-": {RootTar: "-"}, "type=oci,dest=f": {OCITar: "f"}, "type=oci,tar=false,dest=d": {OCILayout: "d"}, "type=docker,dest=f": {DockerTar: "f"},
		`type=local,"dest=a,b"`:          {RootDir: "a,b"},
		"type=image,name=a:1":            {Destinations: []string{"a:1"}, NoPush: true},
		`type=image,"name=a,b:2",push`:   {Destinations: []string{"a", "b:2"}},
		"type=registry,name=h.example/a": {Destinations: []string{"h.example/a"}},
		"type=image,name=a,push-by-digest=true,name-canonical=true,push=true": {Destinations: []string{"a"}, PushByDigest: true},
		"type=oci,dest=f,compression=zstd,compression-level=3":                {OCITar: "f", Compression: "zstd", CompressionLevel: &three},
		"type=oci,dest=f,compression=uncompressed,rewrite-timestamp=true":     {OCITar: "f", Compression: "none", RewriteTimestamp: true},
		"type=oci,dest=f,oci-mediatypes=false":                                {OCITar: "f", ImageFormat: "docker"},
		"type=oci,dest=f,oci-mediatypes=true,annotation-index.k=v":            {OCITar: "f", Annotations: []core.Annotation{{Index: true, Key: "k", Value: "v"}}},
		"type=oci,dest=f,annotation.k=v,annotation-manifest[linux/arm64].k=w": {OCITar: "f", Annotations: []core.Annotation{{Platform: "linux/arm64", Key: "k", Value: "w"}, {Key: "k", Value: "v"}}},
	} {
		var o Outputs
		var got core.Outputs
		require.NoError(t, o.Add(text, &got), text)
		require.NoError(t, o.Settle(&got), text)
		require.Equal(t, want, got, text)
	}
	pushing, got := Outputs{Push: true}, core.Outputs{}
	require.NoError(t, pushing.Add("type=image,name=a", &got))
	require.True(t, pushing.Pushes())
	require.NoError(t, pushing.Add("type=oci,dest=f,name=b", &got))
	require.ErrorContains(t, pushing.Settle(&got), "leave name out")
	for text, want := range map[string]string{
		"type=what,dest=x": `unknown type "what"`, "type=docker": "there is no Docker engine", "type=tar": "dest= is missing", "dest=x": "type= is missing", "type=image,dest=x": "has no dest",
		"type=local,dest=x,name=a": "has no name", "type=local,dest=x,push=true": "has no push", "type=image,push=perhaps": "neither true nor false", "type=image,frobnicate=1": `unknown key "frobnicate"`,
		"type=image,name=A/b": "lowercase", "type=oci,dest=f,compression=x": "use gzip", "type=oci,dest=f,compression-level=x": "no number", "type=oci,dest=f,annotation-layer.k=v": "unknown kind", "type=oci,dest": "field 2",
	} {
		require.ErrorContains(t, new(Outputs).Add(text, &core.Outputs{}), want, text)
	}
	require.ErrorContains(t, new(Outputs).Add("type=tar,dest=a", &core.Outputs{RootTar: "b"}), "two outputs of type tar")
}

func FuzzLists(f *testing.F) {
	f.Add(`type=oci,"dest=a,b",annotation-index.k=v`)
	f.Add("id=a,env=B")
	f.Fuzz(func(t *testing.T, text string) {
		list := []string{text, text}
		_, _ = BuildArgs(list, nil)
		_, _ = SSH(list, nil)
		_ = (&Secrets{}).Docker(list)
		_, _, _ = CachePlace(text)
		_ = new(Outputs).Add(text, &core.Outputs{})
	})
}

func TestSecretsInURLs(t *testing.T) {
	for text, want := range map[string][]string{
		"https://user:s3cret@h/o/r.git#main": {"s3cret"}, "http://t0ken-x7@h/o": {"t0ken-x7"}, "a=https://u:one@h b=https://:two@i": {"one", "two"},
		"ssh://git@h/o": nil, "https://git@h/o": nil, "git@h:o/r": nil, "https://h/o@1": nil, "./dir": nil,
	} {
		var got []string
		for _, s := range URLSecrets(text) {
			got = append(got, string(s))
			require.NotContains(t, WithoutURLSecrets(text), string(s))
		}
		require.Equal(t, want, got, text)
	}
	require.Equal(t, "https://***@h/o", WithoutURLSecrets("https://user:s3cret@h/o"))
}

func TestPairsWithAForm(t *testing.T) {
	files, errs := Certificates([]string{"h=a", "h=b", "i=c", "h", "=x", "h="})
	require.Equal(t, map[string][]string{"h": {"a", "b"}, "i": {"c"}}, files)
	require.Equal(t, "h: write HOST=FILE\n=x: write HOST=FILE\nh=: write HOST=FILE", says(errs))
	client, errs := ClientCertificates([]string{"h=c,k", "h=c", "h=,k"})
	require.Equal(t, map[string]core.ClientCertificate{"h": {Cert: "c", Key: "k"}}, client)
	require.Len(t, errs, 2)
	contexts, errs := Contexts([]string{"a=docker-image://x", "b=", "https://u:s3cret@h", "c=s3://x"})
	require.Contains(t, contexts, "a")
	require.Len(t, errs, 3)
	require.NotContains(t, says(errs), "s3cret")
	for text, want := range map[string]string{"/a/../b/": "/b", "/": "", "/a/..": "", "a": "", "": ""} {
		got, err := ImagePath(text)
		require.Equal(t, want, got)
		require.Equal(t, want == "", err != nil)
	}
}
