package dropin_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/tests/parts"
)

// asked is something that users of Kaniko have asked for: a build and what its image
// says. The numbers are issues of Kaniko (G) and of its fork (F).
type asked struct {
	issues, what string
	files        map[string]string
	dockerfile   string
	docker, args []string
	// run is what a shell in the image runs, prints what it prints.
	run, prints string
}

func whatUsersAskedFor() []asked {
	return []asked{
		{issues: "G506 G1002 G1306 G1623 G2007 G2649", what: "var-run and busy mounts",
			docker:     []string{"-v", "MOUNT:/var/run/secrets/kubernetes.io/serviceaccount:ro", "-v", "MOUNT:/opt/busy"},
			dockerfile: "RUN mkdir -p /var/run/mine /opt/own && echo 1 > /var/run/mine/f && echo 2 > /opt/own/f\nRUN ! ls -R /var/run | grep token",
			run:        "cat /var/run/mine/f /opt/own/f; ls /var/run /opt", prints: "1\n2\n/opt:\nown\n\n/var/run:\nmine\n"},
		{issues: "G704 G1045 G1236 G2714", what: "deleted files stay deleted",
			dockerfile: "RUN mkdir -p /d/e && touch /d/a /d/e/b /f\nRUN rm -r /d && mkdir /d && touch /d/new && rm /f\nRUN ln -s /d/new /f",
			run:        "ls -R /d; readlink /f", prints: "/d:\nnew\n/d/new\n"},
		{issues: "G1837 G2176 G2201 G2594 G2866 F880", what: "owners, set-id bits, hardlinks",
			files: map[string]string{"f": "x"},
			dockerfile: `RUN touch /own && chown 1000:1001 /own && chmod 4755 /own && ln /own /second
RUN mkdir /dir && chown 7:8 /dir && chmod 2775 /dir
COPY --chown=12:13 --chmod=640 f /copied
RUN true`,
			run: "stat -c '%n %u:%g %a %h' /own /second /dir /copied | cut -d' ' -f1-3; test /own -ef /second && echo linked", prints: "/own 1000:1001 4755\n/second 1000:1001 4755\n/dir 7:8 2775\n/copied 12:13 640\nlinked\n"},
		{issues: "G1568 G2192 G2468", what: "mounts of stages, contexts and memory",
			files: map[string]string{"f": "context"},
			dockerfile: `RUN echo stage > /made
FROM BASE
RUN --mount=type=bind,from=first,source=/made,target=/m --mount=type=bind,source=f,target=/c --mount=type=tmpfs,target=/t cat /m /c > /out && touch /t/x
RUN test ! -e /m && test ! -s /m; test ! -e /t/x`,
			run: "cat /out", prints: "stage\ncontext"},
		{issues: "G1713 G2193 G3165", what: "new syntax",
			files:      map[string]string{"a/b/f": "1", "a/b/skip.key": "secret"},
			dockerfile: "RUN <<EOF\necho one > /heredoc\necho two >> /heredoc\nEOF\nCOPY <<file /inline\nthree\nfile\nCOPY --link --parents --exclude=**/*.key a /to/",
			run:        "cat /heredoc /inline /to/a/b/f; ls /to/a/b", prints: "one\ntwo\nthree\n1f\n"},
		{issues: "G3224", what: "zombies are reaped",
			dockerfile: "RUN sleep 0.1 & true\nRUN sleep 0.3; ps -o stat,comm > /ps; ! grep -w Z /ps", run: "echo fine", prints: "fine\n"},
		{issues: "G106 G1861 G2153 F243", what: "steps do not read logins",
			docker:     []string{"-v", "LOGIN:/kaniko/.docker:ro", "-e", "PLANTED=planted-variable"},
			dockerfile: "RUN ! cat /kaniko/.docker/config.json 2>/dev/null && ! env | grep planted && ! cat /proc/1/environ 2>/dev/null | grep -a planted", run: "echo fine", prints: "fine\n"},
		{issues: "G775", what: "stages that nothing needs", dockerfile: "FROM BASE AS unused\nRUN exit 1\nFROM BASE\nRUN true", run: "echo fine", prints: "fine\n"},
	}
}

// TestWhatKanikosUsersAskedFor has what is not tested elsewhere: docs/kaniko.md has
// the table of all.
func TestWhatKanikosUsersAskedFor(t *testing.T) {
	d := parts.Engine(t)
	reg := parts.SharedRegistry(t)
	base := reg.Addr + "/small:1"
	parts.PushBase(t, base, parts.SmallBase(t))
	image := parts.ProductImage(t, d, "executor")
	mount, login := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(mount, "token"), []byte("planted"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(login, "config.json"), []byte(`{"auths":{"planted.example":{"auth":"cGxhbnRlZDpwbGFudGVk"}}}`), 0o600))
	for i, c := range whatUsersAskedFor() {
		t.Run(c.issues+" "+c.what, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			}
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+" AS first\n"+strings.ReplaceAll(c.dockerfile, "BASE", base)+"\n"), 0o644))
			ref := reg.Addr + "/asked:" + string(rune('a'+i))
			command := []string{"run", "--rm", "--network", "host", "-v", dir + ":/workspace"}
			for _, a := range c.docker {
				command = append(command, strings.NewReplacer("MOUNT:", mount+":", "LOGIN:", login+":").Replace(a))
			}
			command = append(append(command, image, "--context=dir:///workspace", "--destination="+ref), c.args...)
			out := d.Must(t, command...)
			require.Contains(t, out, "isolation inplace")
			d.Must(t, "pull", ref)
			require.Equal(t, c.prints, d.Must(t, "run", "--rm", "--network", "none", ref, "sh", "-c", c.run))
		})
	}
}

// TestTheTableOfKanikosIssues: each test that docs/kaniko.md names is there.
func TestTheTableOfKanikosIssues(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(parts.Repo(), "docs", "kaniko.md"))
	require.NoError(t, err)
	_, table, found := strings.Cut(string(data), "## What Kaniko's users asked for")
	require.True(t, found)
	here := map[string]bool{}
	require.NoError(t, filepath.WalkDir(parts.Repo(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			here[m[1]] = true
		}
		return err
	}))
	named, listed := 0, table
	for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(table, -1) {
		require.True(t, here[m[1]], m[1])
		named++
	}
	require.Greater(t, named, 20)
	for _, c := range whatUsersAskedFor() {
		for _, issue := range strings.Fields(c.issues) {
			require.Regexp(t, `\b`+issue+`\b`, listed)
		}
	}
}
