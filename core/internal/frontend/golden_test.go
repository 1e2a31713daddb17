package frontend

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/graph"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldens is the name of a file in testdata and what is built.
var goldens = map[string]struct {
	dockerfile string
	set        func(*Request)
}{
	"multistage": {dockerfile: "FROM golang AS build\nWORKDIR /src\nCOPY go.mod ./\nRUN go mod download\nCOPY . .\nRUN go build\n\nFROM base AS unused\nRUN false\n\nFROM base\nCOPY --from=build /src/app /bin/\nCMD [\"app\"]\n"},
	"heredocs":   {dockerfile: "FROM base\nRUN <<A\necho one\nA\nRUN <<B\n#!/bin/sh\necho two\nB\nCOPY <<C /c\ntext $HOME\nC\nCOPY <<'D' <<E /dir/\nraw $X\nD\nmore\nE\n"},
	"mounts": {dockerfile: "FROM base AS other\nFROM base\nRUN --mount=type=cache,target=/c,id=x,uid=5,mode=0700 true\nRUN --mount=type=bind,target=/b,source=dir true\n" +
		"RUN --mount=type=bind,rw,from=other,target=/o true\nRUN --mount=type=tmpfs,target=/t,size=1024 true\nRUN --mount=type=secret,id=s,env=TOKEN,required=true true\n" +
		"RUN --mount=type=secret,id=f,target=/f,mode=0440 true\nRUN --mount=type=ssh true\n"},
	"link":           {dockerfile: "FROM base AS a\nCOPY --link x /x\nFROM base\nCOPY --link y /y\nCOPY --link --chmod=600 z /z\nCOPY --from=a /x /from-a\n"},
	"platforms":      {dockerfile: "FROM --platform=$BUILDPLATFORM base AS build\nARG TARGETARCH\nCOPY . /src\nRUN true\nFROM base\nCOPY --from=build /src /src\n", set: twoPlatforms},
	"named-contexts": {dockerfile: "FROM alpine\nCOPY --from=files f /f\nCOPY --from=img i /i\n", set: namedContexts},
	"args": {dockerfile: "ARG TAG=1\nFROM base:$TAG\nARG A=x B\nENV C=$A-$B PATH=/p:$PATH\nRUN echo $C\nLABEL l=$C\n", set: func(r *Request) {
		r.BuildArgs = map[string]string{"TAG": "2", "B": "given", "HTTP_PROXY": "http://proxy.test"}
		r.Labels = map[string]string{"from": "outside"}
	}},
	"copies":   {dockerfile: "FROM base\nCOPY --chown=app:grp --chmod=u+x a b /d/\nADD --chown=1:2 x.tar /x/\nCOPY --exclude=*.md dir /dir\nCOPY --parents a/b/c /p/\nCOPY *.go /go/\n"},
	"run":      {dockerfile: "FROM base\nUSER app\nSHELL [\"/bin/bash\", \"-c\"]\nWORKDIR /w\nRUN --network=none a\nRUN [\"b\", \"c\"]\n", set: stepSettings},
	"no-cache": {dockerfile: "FROM base AS a\nRUN a\nFROM base\nRUN b\nCOPY --from=a /x /x\n", set: func(r *Request) { r.NoCacheFilter = []string{"a"} }},
	"ignore":   {dockerfile: "FROM base\nCOPY . /all\n"},
	"scratch":  {dockerfile: "FROM scratch\nLABEL a=b\n"},
	"onbuild":  {dockerfile: "FROM base\nONBUILD RUN later\nVOLUME /v\nEXPOSE 80\nHEALTHCHECK CMD true\nSTOPSIGNAL 9\nENTRYPOINT [\"e\"]\n"},
	"remote":   {dockerfile: "FROM base\nADD https://files.test/f /f\nADD https://git.test/r.git#v1 /r\n"},
	"target":   {dockerfile: "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\n", set: func(r *Request) { r.Target = "a" }},
}

func twoPlatforms(r *Request) {
	r.Platforms = []ocispecs.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}
}

func namedContexts(r *Request) {
	r.Locals["_files"] = r.Locals[Context]
	r.NamedContexts = map[string]string{"alpine": "docker-image://registry.test/mine:1", "files": "local:_files", "img": "docker-image://other"}
}

func stepSettings(r *Request) {
	r.ExtraHosts, r.Ulimits = []string{"db:10.0.0.1"}, []string{"nofile=10:20"}
	r.ShmSize, r.Network, r.Hostname = 1<<20, "host", "builder"
}

func golden(t *testing.T, name string) Request {
	g := goldens[name]
	req := request(t, g.dockerfile, map[string]string{".dockerignore": "*.log\n!keep.log\n"})
	if g.set != nil {
		g.set(&req)
	}
	return req
}

func TestGraphs(t *testing.T) {
	for name, g := range goldens {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(g.dockerfile, "BUILDPLATFORM") && runtime.GOARCH != "amd64" {
				t.Skip("recorded on amd64, which is its build platform")
			}
			res, err := Run(t.Context(), golden(t, name), &images{})
			require.NoError(t, err)
			got := dump(res)
			file := filepath.Join("testdata", name+".txt")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), got)
		})
	}
}

// The context lies elsewhere each time; nothing of that may be in a digest.
func TestDigestsAreTheSameInEveryRun(t *testing.T) {
	for name := range goldens {
		var seen []string
		for range 3 {
			res, err := Run(t.Context(), golden(t, name), &images{})
			require.NoError(t, err)
			var list []string
			for _, v := range res.Graph.Vertices {
				list = append(list, string(v.Digest))
			}
			slices.Sort(list) // platforms are converted concurrently
			if seen != nil {
				require.Equal(t, seen, list, name)
			}
			seen = list
		}
	}
}

func TestPlatformsShareWhatIsTheSame(t *testing.T) {
	res, err := Run(t.Context(), golden(t, "platforms"), &images{})
	require.NoError(t, err)
	require.Len(t, res.Images, 2)
	n := map[string]int{}
	for _, v := range res.Graph.Vertices {
		n[v.Name[strings.Index(v.Name, "]")+1:]]++
	}
	require.Equal(t, 1, n[" load build context"])
	require.Equal(t, 1, n[" COPY . /src"], "a step of the build platform is one vertex")
	require.Equal(t, 2, n[" COPY --from=build /src /src"])
}

func dump(res *Result) string {
	var b strings.Builder
	number := func(e graph.Edge) string {
		if e.Vertex == nil {
			return "none"
		}
		return fmt.Sprintf("%d.%d", e.Vertex.Index, e.Output)
	}
	for _, v := range res.Graph.Vertices {
		fmt.Fprintf(&b, "%d %s", v.Index, v.Name)
		if v.Location != nil {
			fmt.Fprintf(&b, " @%d-%d", v.Location.Start, v.Location.End)
		}
		if v.IgnoreCache {
			b.WriteString(" no-cache")
		}
		b.WriteString("\n")
		for _, in := range v.Inputs {
			fmt.Fprintf(&b, "    < %s\n", number(in))
		}
		describe(&b, v.Op)
	}
	captured := []int{}
	for v := range res.Graph.Captured() {
		captured = append(captured, v.Index)
	}
	slices.Sort(captured)
	fmt.Fprintf(&b, "captured %v\n", captured)
	for _, i := range res.Images {
		fmt.Fprintf(&b, "image %s/%s root %s base %v\n%s\n", i.Platform.OS, i.Platform.Architecture, number(i.Root), i.BaseConfig != nil, i.Config)
	}
	return b.String()
}

func describe(b *strings.Builder, op *pb.Op) {
	line := func(format string, args ...any) { fmt.Fprintf(b, "    "+format+"\n", args...) }
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		line("source %s", o.Source.Identifier)
		keys := []string{}
		for k := range o.Source.Attrs {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			line("  %s=%s", k, o.Source.Attrs[k])
		}
	case *pb.Op_Exec:
		m := o.Exec.Meta
		line("exec %q env %q cwd %s user %q host %q net %s", m.Args, m.Env, m.Cwd, m.User, m.Hostname, o.Exec.Network)
		if m.ProxyEnv != nil {
			line("  proxy %s", m.ProxyEnv.HttpProxy)
		}
		for _, h := range m.ExtraHosts {
			line("  host %s %s", h.Host, h.IP)
		}
		for _, u := range m.Ulimit {
			line("  ulimit %s %d %d", u.Name, u.Soft, u.Hard)
		}
		for _, s := range o.Exec.Secretenv {
			line("  secret %s as %s optional %v", s.ID, s.Name, s.Optional)
		}
		for _, m := range o.Exec.Mounts {
			line("  mount %s at %s in %d out %d selector %q ro %v%s", m.MountType, m.Dest, m.Input, m.Output, m.Selector, m.Readonly, mountOptions(m))
		}
	case *pb.Op_File:
		for _, a := range o.File.Actions {
			line("file in %d,%d out %d %s", a.Input, a.SecondaryInput, a.Output, fileAction(a))
		}
	case *pb.Op_Merge:
		line("merge")
	}
	if op.Platform != nil {
		line("platform %s/%s", op.Platform.OS, op.Platform.Architecture)
	}
}

func mountOptions(m *pb.Mount) string {
	switch m.MountType {
	case pb.MountType_CACHE:
		return fmt.Sprintf(" id %s %s", m.CacheOpt.ID, m.CacheOpt.Sharing)
	case pb.MountType_TMPFS:
		return fmt.Sprintf(" size %d", m.TmpfsOpt.Size)
	case pb.MountType_SECRET:
		return fmt.Sprintf(" id %s mode %o optional %v", m.SecretOpt.ID, m.SecretOpt.Mode, m.SecretOpt.Optional)
	}
	return ""
}

func fileAction(a *pb.FileAction) string {
	switch o := a.Action.(type) {
	case *pb.FileAction_Copy:
		c := o.Copy
		return fmt.Sprintf("copy %s to %s mode %d %q owner %s unpack %v exclude %q include %q required %q", c.Src, c.Dest, c.Mode, c.ModeStr,
			owner(c.Owner), c.AttemptUnpackDockerCompatibility, c.ExcludePatterns, c.IncludePatterns, c.RequiredPaths)
	case *pb.FileAction_Mkdir:
		return fmt.Sprintf("mkdir %s mode %o owner %s", o.Mkdir.Path, o.Mkdir.Mode, owner(o.Mkdir.Owner))
	case *pb.FileAction_Mkfile:
		return fmt.Sprintf("mkfile %s mode %o %q", o.Mkfile.Path, o.Mkfile.Mode, o.Mkfile.Data)
	}
	return "?"
}

func owner(o *pb.ChownOpt) string {
	part := func(u *pb.UserOpt) string {
		switch n := u.GetUser().(type) {
		case *pb.UserOpt_ByName:
			return n.ByName.Name
		case *pb.UserOpt_ByID:
			return fmt.Sprint(n.ByID)
		}
		return "-"
	}
	return part(o.GetUser()) + ":" + part(o.GetGroup())
}
