package tags_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/tags"
)

func TestExplicitAndAutomaticTagsCombine(t *testing.T) {
	r, problems := tags.Make(on("push refs/tags/v1.2.3"), tags.Settings{
		Images: []string{"ghcr.io/Org/App", "name=docker.io/org/app,enable={{is_default_branch}}", "other:5000/app"},
		Rules:  []string{"type=semver,pattern={{version}}"}, Explicit: []string{"stable", "quay.io/org/app:edge", "latest"}, Preset: tags.Drone,
	})
	require.Empty(t, problems)
	require.Equal(t, []string{"ghcr.io/org/app", "other:5000/app"}, r.Images)
	require.Equal(t, []string{"stable", "latest", "1.2.3", "1", "1.2"}, r.Tags)
	require.Equal(t, "1.2.3", r.Version)
	require.Equal(t, "quay.io/org/app:edge", r.References[0])
	require.Len(t, r.References, 1+2*5)
	require.Contains(t, r.Notices, "image name ghcr.io/Org/App must be lowercase, ghcr.io/org/app is used instead")
}

func TestDroneSkipsOnlyWhatHasNoOtherTag(t *testing.T) {
	r, _ := tags.Make(on("push refs/heads/dev"), tags.Settings{Images: []string{"a/b"}, Preset: tags.Drone})
	require.Contains(t, r.Skip, "refs/heads/dev")
	r, _ = tags.Make(on("push refs/heads/dev"), tags.Settings{Images: []string{"a/b"}, Preset: tags.Drone, Explicit: []string{"x"}})
	require.Empty(t, r.Skip)
	require.Equal(t, []string{"a/b:x"}, r.References)
}

func TestWholeReferencesAreMadeValid(t *testing.T) {
	for in, want := range map[string]string{
		"app":                                   "app:latest",
		"User/App:V1":                           "user/app:V1",
		"localhost:5000/app":                    "localhost:5000/app:latest",
		"localhost:5000/app:1":                  "localhost:5000/app:1",
		"ghcr.io/o/a:feature/some":              "", // a name with a colon in it
		"ghcr.io/o/a:1+2":                       "ghcr.io/o/a:1-2",
		"a/b@sha256:" + strings.Repeat("0", 64): "",
		"UPPER..bad//x:1":                       "",
	} {
		r, problems := tags.Make(on("push refs/heads/x"), tags.Settings{Explicit: []string{in}})
		if want == "" {
			require.Len(t, problems, 1, in)
			require.Equal(t, "tags", problems[0].Setting)
			continue
		}
		require.Empty(t, problems, in)
		require.Equal(t, []string{want}, r.References)
		require.Equal(t, !strings.HasPrefix(want, in), len(r.Notices) > 0, "a change is said: %s", in)
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	_, problems := tags.Make(on("push refs/heads/x"), tags.Settings{
		Images: []string{"a b", "x/y:1", "enable=true", "name=x,enable=maybe", "name=x,colour=red"},
		Flavor: []string{"latest=maybe", "onlatest=true", "what", "prefix=x,onlatest=perhaps"},
		Rules: []string{
			"type=nothing", "type=semver", "type=ref", "type=ref,event=x", "type=raw", "type=sha,format=middle", "type=match,pattern=(", "type=match,pattern=x,group=y",
			"type=raw,value={{nothing}}", "type=raw,value={{branch", "type=raw,value=x,enable=yes", "type=raw,value={{date}}", "type=raw,value={{date 'wo'}}",
			"type=raw,value={{date 'Y' tz='Mars/Base'}}", "type=raw,value={{date 'Y' x='1'}}", "type=raw,value={{branch 'x'}}", "type=raw,value={{date Y}}", "type=raw,value={{date 'Y}}",
			"type=raw,value=x,priority=high", "type=raw,value=x,colour=red", "type=raw,value=---,prefix=",
		},
		Explicit: []string{"...", "a/b@sha256:0"},
		Preset:   "jenkins",
	})
	count := map[string]int{}
	for _, p := range problems {
		count[p.Setting]++
		require.NotEmpty(t, p.Value)
		require.ErrorContains(t, p, p.Value)
	}
	require.Equal(t, map[string]int{"images": 5, "flavor": 4, "tags": 23, "auto-tag": 1}, count)
}

func TestFormatsOfMoment(t *testing.T) {
	e := on("push refs/heads/x")
	e.Now = time.Date(2021, 3, 7, 14, 5, 9, 123456789, time.UTC)
	for format, want := range map[string]string{
		"YYYY YY Y": "2021-21-2021", "MMMM MMM MM M Mo": "March-Mar-03-3-3rd", "DDDD DDD DD D Do": "066-66-07-7-7th",
		"dddd ddd dd d E": "Sunday-Sun-Su-0-7", "GGGG GG WW W Q Qo": "2021-21-09-9-1-1st", "HH H hh h kk k": "14-14-02-2-14-14",
		"mm m ss s SSS": "05-5-09-9-123", "A a": "PM-pm", "X": "1615125909", "x": "1615125909123", "Z": "-00-00", "ZZ": "-0000",
		"YYYY-MM-DDTHH": "2021-03-07T14", "[at] HH": "at-14",
	} {
		r, problems := tags.Make(e, tags.Settings{Rules: []string{"type=raw,value=z{{date '" + format + "'}}"}})
		require.Empty(t, problems, format)
		require.Equal(t, []string{"z" + want}, r.Tags, format)
	}
}

func TestLabelsAreThoseOfOCI(t *testing.T) {
	labels := tags.Labels(on("push refs/tags/v1.2.3"), tags.Project{Title: "app", URL: "https://h/o/app", Source: "https://h/o/app.git"}, "1.2.3")
	require.Equal(t, map[string]string{
		"org.opencontainers.image.title": "app", "org.opencontainers.image.url": "https://h/o/app", "org.opencontainers.image.source": "https://h/o/app.git",
		"org.opencontainers.image.version": "1.2.3", "org.opencontainers.image.revision": commit, "org.opencontainers.image.created": "2020-01-10T00:30:00Z",
	}, labels)
}

// FuzzMake holds that no text makes a tag that a registry would refuse.
func FuzzMake(f *testing.F) {
	for _, c := range metadata {
		f.Add(c.event, c.rules, c.flavor)
	}
	f.Fuzz(func(t *testing.T, event, rules, flavor string) {
		r, problems := tags.Make(on(event), tags.Settings{Rules: lines(rules), Flavor: lines(flavor), Explicit: lines(rules), Images: []string{"a/b"}, Preset: tags.GitLab})
		if len(problems) > 0 {
			return
		}
		for _, tag := range r.Tags {
			require.Regexp(t, `^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`, tag)
		}
	})
}
