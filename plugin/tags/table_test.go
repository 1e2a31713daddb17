package tags_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/plugin/tags"
)

// at is the time of all cases.
var at = time.Date(2020, 1, 10, 0, 30, 0, 0, time.UTC)

const commit = "860c1904a1ce19322e91ac35af1ab07466440c37"

// on makes an event of "name ref [base]".
func on(s string) tags.Event {
	f := append(strings.Fields(s), "", "", "")
	return tags.Event{Name: f[0], Ref: f[1], BaseRef: f[2], SHA: commit, DefaultBranch: "master", Now: at, CommitTime: at.AddDate(0, 0, -3)}
}

// row is one event and what rules (lines) and flavour make of it.
type row struct{ event, rules, flavor, want string }

// metadata are cases from docker/metadata-action's README (tables of each type,
// of "Latest tag" and "Global expressions") and of what its code does.
var metadata = []row{
	// The default rules: README, "Basic".
	{"pull_request refs/pull/2/merge", "", "", "pr-2"},
	{"push refs/heads/master", "", "", "master"},
	{"push refs/heads/releases/v1", "", "", "releases-v1"},
	{"push refs/tags/v1.2.3", "", "", "v1.2.3 latest"},
	{"push refs/tags/v2.0.8-beta.67", "", "", "v2.0.8-beta.67 latest"},
	{"workflow_dispatch refs/heads/master", "", "", "master"},
	{"schedule refs/heads/master", "", "", "nightly master"},
	{"push refs/heads/my/branch", "", "", "my-branch"},
	{"push refs/tags/v1.2.3", "", "latest=false", "v1.2.3"},
	{"push refs/heads/master", "", "latest=true", "master latest"},
	// README, "Semver".
	{"pull_request refs/pull/2/merge", semvers, "", "pr-2"},
	{"push refs/heads/master", semvers, "", "master"},
	{"push refs/heads/releases/v1", semvers, "", "releases-v1"},
	{"push refs/tags/v1.2.3", semvers, "", "1.2.3 1.2 latest"},
	{"push refs/tags/v2.0.8-beta.67", semvers, "", "2.0.8-beta.67"},
	{"workflow_dispatch refs/heads/master", semvers, "", "master"},
	// type=schedule.
	{"schedule refs/heads/master", "type=schedule", "", "nightly"},
	{"schedule refs/heads/master", "type=schedule,pattern={{date 'YYYYMMDD'}}", "", "20200110"},
	{"schedule refs/heads/master", "type=schedule,pattern={{date 'YYYYMMDD-HHmmss' tz='Asia/Tokyo'}}", "", "20200110-093000"},
	{"schedule refs/heads/master", "type=schedule,pattern=weekly-{{date 'GGGG-[W]WW'}}", "", "weekly-2020-W02"},
	{"schedule refs/heads/master", "type=schedule,prefix=v,suffix=-x", "", "vnightly-x"},
	{"push refs/heads/master", "type=schedule", "", ""},
	{"schedule refs/heads/master", "type=schedule", "latest=true", "nightly latest"},
	{"schedule refs/heads/master", "type=sha\ntype=ref,event=branch\ntype=schedule", "", "nightly master sha-860c190"},
	// type=semver.
	{"push refs/tags/v1.2.3", "type=semver,pattern={{raw}}", "", "v1.2.3 latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}}", "", "1.2.3 latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{major}}.{{minor}}", "", "1.2 latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern=v{{major}}", "", "v1 latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{minor}}", "", "2 latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{patch}}", "", "3 latest"},
	{"push refs/tags/v2.0.8-beta.67", "type=semver,pattern={{raw}}", "", "v2.0.8-beta.67"},
	{"push refs/tags/v2.0.8-beta.67", "type=semver,pattern={{version}}", "", "2.0.8-beta.67"},
	{"push refs/tags/v2.0.8-beta.67", "type=semver,pattern={{major}}.{{minor}}", "", "2.0.8-beta.67"},
	{"push refs/tags/v2.0.8-beta.67", "type=semver,pattern={{major}}\ntype=semver,pattern={{version}}", "", "2.0.8-beta.67"},
	{"push refs/tags/v0.1.2", "type=semver,pattern={{version}}\ntype=semver,pattern={{major}}.{{minor}}\ntype=semver,pattern={{major}}", "", "0.1.2 0.1 0 latest"},
	{"push refs/tags/v0.1.2", "type=semver,pattern={{version}}\ntype=semver,pattern={{major}},enable=false", "", "0.1.2 latest"},
	{"push refs/tags/v1.2.3+build.4", "type=semver,pattern={{version}}", "", "1.2.3 latest"},
	{"push refs/tags/1.2.3", "type=semver,pattern={{version}}", "", "1.2.3 latest"},
	{"push refs/tags/1.2", "type=semver,pattern={{version}}", "", ""},
	{"push refs/tags/v01.2.3", "type=semver,pattern={{version}}", "", ""},
	{"push refs/tags/big-test", "type=semver,pattern={{version}}\ntype=ref,event=tag", "", "big-test latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}}", "latest=false", "1.2.3"},
	{"push refs/tags/v2.0.8-beta.67", "type=semver,pattern={{version}}", "latest=true", "2.0.8-beta.67 latest"},
	{"push refs/heads/master", "type=semver,pattern={{version}}", "", ""},
	{"push refs/heads/master", "type=semver,pattern={{version}},value=v1.0.0", "", "1.0.0 latest"},
	{"push refs/tags/v3.0.0", "type=semver,pattern={{version}},value=v1.0.0", "", "1.0.0 latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}},value={{tag}}", "", "1.2.3 latest"},
	{"push refs/tags/p1/v1.2.3", "type=semver,pattern={{version}},match=p1/(v.*)$", "", "1.2.3 latest"},
	{"push refs/tags/p1/v1.2.3", "type=semver,pattern={{version}}", "", ""},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}},prefix=foo-,suffix=-bar", "", "foo-1.2.3-bar latest"},
	{"push refs/tags/v1.1.1", "type=semver,pattern={{version}}\ntype=sha", "", "1.1.1 sha-860c190 latest"},
	{"push refs/tags/v1.1.1", "type=semver,pattern=foo", "", "foo latest"},
	// type=pep440.
	{"push refs/tags/1.2.3", "type=pep440,pattern={{raw}}", "", "1.2.3 latest"},
	{"push refs/tags/1.2.3", "type=pep440,pattern={{version}}", "", "1.2.3 latest"},
	{"push refs/tags/v1.2.3rc2", "type=pep440,pattern={{raw}}", "", "v1.2.3rc2"},
	{"push refs/tags/1.2.3rc2", "type=pep440,pattern={{version}}", "", "1.2.3rc2"},
	{"push refs/tags/1.2.3rc2", "type=pep440,pattern={{major}}.{{minor}}", "", "1.2.3rc2"},
	{"push refs/tags/1.2.3.post1", "type=pep440,pattern={{major}}.{{minor}}", "", "1.2.3.post1"},
	{"push refs/tags/1.2.3.dev2", "type=pep440,pattern={{major}}", "", "1.2.3.dev2"},
	{"push refs/tags/1.2.3beta2", "type=pep440,pattern={{major}}.{{minor}}", "", "1.2.3b2"},
	{"push refs/tags/1.0dev4", "type=pep440,pattern={{major}}.{{minor}}", "", "1.0.dev4"},
	{"push refs/tags/v1.2.3", "type=pep440,pattern={{major}}.{{minor}}", "", "1.2 latest"},
	{"push refs/tags/1.2", "type=pep440,pattern={{version}}", "", "1.2 latest"},
	{"push refs/tags/1.2", "type=pep440,pattern={{major}}.{{minor}}.{{patch}}", "", "1.2.0 latest"},
	{"push refs/tags/v2.0.8-beta.67", "type=pep440,pattern={{version}}", "", "2.0.8b67"},
	{"push refs/tags/big", "type=pep440,pattern={{version}}", "", ""},
	{"push refs/heads/master", "type=pep440,pattern={{version}},value=1.0.0", "", "1.0.0 latest"},
	{"push refs/heads/master", "type=pep440,pattern={{version}}", "", ""},
	// type=match.
	{"push refs/tags/v1.2.3", `type=match,pattern=\d.\d.\d`, "", "1.2.3 latest"},
	{"push refs/tags/v2.0.8-beta.67", "type=match,pattern=v(.*),group=1", "", "2.0.8-beta.67 latest"},
	{"push refs/tags/v2.0.8-beta.67", `type=match,pattern=v(\d.\d),group=1`, "", "2.0 latest"},
	{"push refs/tags/20200110-RC2", `type=match,pattern=\d+`, "", "20200110 latest"},
	{"push refs/tags/p1/v1.2.3", `type=match,pattern=p1/v(\d.\d.\d),group=1`, "", "1.2.3 latest"},
	{"push refs/tags/p1/v1.2.3", `type=match,pattern=p1-v(\d.\d.\d),group=1`, "", ""},
	{"push refs/tags/20200110-RC2", `type=match,pattern=/rc\d/i`, "", "RC2 latest"},
	{"push refs/tags/20200110-RC2", `type=match,pattern=rc\d`, "", ""},
	{"push refs/tags/v1.2.3", "type=match,pattern=v(.*),group=2", "", ""},
	{"push refs/heads/master", "type=match,pattern=v(.*),group=1", "", ""},
	{"push refs/heads/master", "type=match,pattern=v(.*),group=1,value=v1.0.0", "", "1.0.0 latest"},
	{"push refs/tags/v1.2.3", `type=match,"pattern=v(\d{1,3})",group=1`, "", "1 latest"},
	{"push refs/tags/v1.2.3", "type=match,pattern=v(.*),group=1", "latest=false", "1.2.3"},
	// type=edge.
	{"push refs/heads/master", "type=edge", "", "edge"},
	{"push refs/heads/main", "type=edge", "", ""},
	{"push refs/heads/main", "type=edge,branch=main", "", "edge"},
	{"push refs/heads/master", "type=edge,branch=main", "", ""},
	{"push refs/tags/v1.0.0", "type=edge", "", ""},
	{"push refs/heads/master", "type=ref,event=branch\ntype=edge", "", "edge master"},
	{"push refs/heads/master", "type=edge", "latest=true", "edge latest"},
	// type=ref.
	{"pull_request refs/pull/2/merge", "type=ref,event=pr", "", "pr-2"},
	{"pull_request refs/pull/2/merge", "type=ref,event=pr,prefix=", "", "2"},
	{"pull_request refs/pull/2/merge", "type=ref,event=branch", "", ""},
	{"push refs/heads/master", "type=ref,event=branch,prefix=x-,suffix=-y", "", "x-master-y"},
	{"push refs/tags/v1.2.3", "type=ref,event=tag", "", "v1.2.3 latest"},
	{"push refs/tags/v1.2.3", "type=ref,event=branch", "", ""},
	{"push refs/heads/master", "type=ref,event=tag", "", ""},
	{"push refs/heads/l33t/Ünïcode", "type=ref,event=branch", "", "l33t-n-code"},
	// type=raw.
	{"push refs/heads/master", "type=raw,value=foo", "", "foo"},
	{"push refs/heads/master", "type=raw,foo", "", "foo"},
	{"push refs/heads/master", "foo", "", "foo"},
	{"push refs/heads/master", "type=raw,value=foo bar", "", "foo-bar"},
	{"push refs/heads/master", "foo\nbar", "", "foo bar"},
	{"push refs/heads/master", "type=raw,value=latest", "", "latest"},
	{"push refs/heads/master", "type=raw,value=latest,enable={{is_default_branch}}", "", "latest"},
	{"push refs/heads/dev", "type=raw,value=latest,enable={{is_default_branch}}", "", ""},
	{"push refs/tags/v1.2.3", "type=raw,value=foo", "", "foo"},
	{"push refs/tags/v1.2.3", "type=raw,value=foo\ntype=ref,event=tag", "", "v1.2.3 foo latest"},
	{"push refs/tags/v1.2.3", "type=raw,value=foo,priority=2000\ntype=ref,event=tag", "", "foo v1.2.3"},
	// type=sha.
	{"push refs/heads/master", "type=sha", "", "sha-860c190"},
	{"push refs/heads/master", "type=sha,prefix=", "", "860c190"},
	{"push refs/heads/master", "type=sha,format=long", "", "sha-" + commit},
	{"push refs/heads/master", "type=sha,prefix=git-,suffix=-x", "", "git-860c190-x"},
	{"pull_request refs/pull/2/merge", "type=ref,event=pr\ntype=sha", "", "pr-2 sha-860c190"},
	// Priorities: the first is the version and decides about latest.
	{"push refs/tags/v1.2.3", "type=sha\ntype=raw,value=r\ntype=ref,event=tag\ntype=match,pattern=1\ntype=semver,pattern={{version}}", "", "1.2.3 1 v1.2.3 r sha-860c190 latest"},
	{"push refs/tags/v1.2.3", "type=sha,priority=901\ntype=semver,pattern={{version}}", "", "sha-860c190 1.2.3"},
	{"push refs/heads/master", "type=raw,value=a\ntype=raw,value=b\ntype=raw,value=a", "", "a b"},
	// The flavour.
	{"push refs/heads/master", "type=ref,event=branch", "prefix=foo-", "foo-master"},
	{"push refs/heads/master", "type=ref,event=branch", "suffix=-alpine", "master-alpine"},
	{"push refs/heads/master", "type=ref,event=branch,suffix=", "suffix=-alpine", "master"},
	{"push refs/heads/master", "type=sha", "prefix=foo-", "sha-860c190"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}}", "suffix=-alpine", "1.2.3-alpine latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}}", "suffix=-alpine,onlatest=true", "1.2.3-alpine latest-alpine"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}}", "prefix=foo-,onlatest=true\nsuffix=-bar", "foo-1.2.3-bar foo-latest"},
	{"push refs/tags/v1.2.3", "type=semver,pattern={{version}}", "latest=true\nprefix=a,onlatest=true\nsuffix=b,onlatest=true", "a1.2.3b alatestb"},
	{"push refs/heads/dev", "type=raw,value=x", "prefix={{branch}}-", "dev-x"},
	// Global expressions.
	{"push refs/heads/dev", "type=raw,value=mytag-{{branch}}-{{sha}}", "", "mytag-dev-860c190"},
	{"push refs/tags/v1.2.3", "type=raw,value=x{{branch}}", "", "x"},
	{"push refs/tags/v1.2.3", "type=raw,value=mytag-{{tag}}", "", "mytag-v1.2.3"},
	{"push refs/heads/dev", "type=raw,value=mytag-{{tag}}", "", "mytag-"},
	{"push refs/tags/v1.2.3 main", "type=raw,value=mytag-{{base_ref}}", "", "mytag-main"},
	{"pull_request refs/pull/2/merge main", "type=raw,value=mytag-{{base_ref}}", "", "mytag-main"},
	{"push refs/heads/dev main", "type=raw,value=mytag-{{base_ref}}", "", "mytag-"},
	{"push refs/heads/dev", "type=raw,value={{branch}},enable={{is_not_default_branch}}", "", "dev"},
	{"push refs/heads/master", "type=raw,value={{branch}},enable={{is_not_default_branch}}", "", ""},
	{"schedule refs/heads/dev", "type=raw,value={{is_default_branch}}", "", "true"},
	{"push refs/heads/dev", "type=raw,value={{date 'YYYY-MM-DD'}}", "", "2020-01-10"},
	{"push refs/heads/dev", "type=raw,value={{date 'YYYYMMDD-HHmm' tz='America/New_York'}}", "", "20200109-1930"},
	{"push refs/heads/dev", "type=raw,value={{date 'X'}}", "", "1578616200"},
	{"push refs/heads/dev", "type=raw,value={{commit_date 'YYYYMMDD'}}", "", "20200107"},
	{"push refs/heads/dev", "type=raw,value={{ branch }}.{{date 'Do'}}", "", "dev.10th"},
	// What is not valid is made valid.
	{"push refs/heads/-x", "type=ref,event=branch", "", "x"},
	{"push refs/heads/.hidden", "type=ref,event=branch", "", "hidden"},
	{"push refs/heads/" + strings.Repeat("a", 200), "type=ref,event=branch", "", strings.Repeat("a", 128)},
	{"push refs/heads/$(id)`x`", "type=ref,event=branch", "", "id-x-"},
}

const semvers = "type=ref,event=branch\ntype=ref,event=pr\ntype=semver,pattern={{version}}\ntype=semver,pattern={{major}}.{{minor}}"

func lines(s string) []string { return strings.Split(s, "\n") }

func TestMetadataActionsRules(t *testing.T) {
	require.GreaterOrEqual(t, len(metadata), 120)
	for _, c := range metadata {
		t.Run(c.event+" "+c.rules+" "+c.flavor, func(t *testing.T) {
			s := tags.Settings{Preset: tags.Metadata}
			if c.rules != "" {
				s.Rules = lines(c.rules)
			}
			if c.flavor != "" {
				s.Flavor = lines(c.flavor)
			}
			r, problems := tags.Make(on(c.event), s)
			require.Empty(t, problems)
			require.Equal(t, c.want, strings.Join(r.Tags, " "))
			if c.want != "" {
				require.Equal(t, strings.Fields(c.want)[0], r.Version)
			}
		})
	}
}

// TestDronesAutoTag has the cases of drone-docker's own tests and README.
func TestDronesAutoTag(t *testing.T) {
	for _, c := range []struct{ ref, suffix, want string }{
		{"refs/heads/master", "", "latest"},
		{"refs/heads/master", "linux-amd64", "linux-amd64"},
		{"refs/heads/master", "nanoserver", "nanoserver"},
		{"refs/heads/develop", "", ""},
		{"refs/heads/develop", "x", ""},
		{"refs/pull/3/head", "", ""},
		{"refs/tags/0.9.0", "", "0.9 0.9.0"},
		{"refs/tags/1.0.0", "", "1 1.0 1.0.0"},
		{"refs/tags/v1.0.0", "", "1 1.0 1.0.0"},
		{"refs/tags/v1.2.3", "", "1 1.2 1.2.3"},
		{"refs/tags/v1.0.0-alpha.1", "", "1.0.0-alpha.1"},
		{"refs/tags/v1.0.0-rc.1", "arm", "1.0.0-rc.1-arm"},
		{"refs/tags/v1.0.0+build", "", "1.0.0-build"},
		{"refs/tags/v1.0.0", "linux-amd64", "1-linux-amd64 1.0-linux-amd64 1.0.0-linux-amd64"},
		{"refs/tags/v1.9.2", "nanoserver", "1-nanoserver 1.9-nanoserver 1.9.2-nanoserver"},
		{"refs/tags/v18.06.0", "nanoserver", "18-nanoserver 18.06-nanoserver 18.06.0-nanoserver"},
		{"refs/tags/v20.01.00", "", "20 20.01 20.01.00"},
	} {
		t.Run(c.ref+" "+c.suffix, func(t *testing.T) {
			r, problems := tags.Make(on("push "+c.ref), tags.Settings{Preset: tags.Drone, Suffix: c.suffix})
			require.Empty(t, problems)
			require.Equal(t, c.want, strings.Join(r.Tags, " "))
			require.Equal(t, c.want == "", r.Skip != "", "only what has no tag is skipped")
		})
	}
}

// TestDronesAutoTagRefusesWhatIsNoVersion: drone-docker ends the step with an error
// (main.go, "invalid semantic version"); an image called latest would be wrong.
func TestDronesAutoTagRefusesWhatIsNoVersion(t *testing.T) {
	for _, ref := range []string{"refs/tags/x1.0.0", "refs/tags/20190203", "refs/tags/1.0", "refs/tags/1.2.3.4", "refs/tags/release-7"} {
		_, problems := tags.Make(on("push "+ref), tags.Settings{Images: []string{"o/a"}, Preset: tags.Drone})
		require.Len(t, problems, 1, ref)
		require.Equal(t, "auto-tag", problems[0].Setting)
		require.ErrorContains(t, problems[0], "is no version such as v1.2.3")
		r, problems := tags.Make(on("push "+ref), tags.Settings{Images: []string{"o/a"}, Preset: tags.Drone, Explicit: []string{"mine"}})
		require.Empty(t, problems)
		require.Equal(t, []string{"mine"}, r.Tags, "beside other tags it is only said")
		require.Len(t, r.Notices, 1)
	}
}

// TestExpandTag has the cases of drone-kaniko's tests and README.
func TestExpandTag(t *testing.T) {
	for tag, want := range map[string]string{
		"v1.2.3": "1 1.2 1.2.3", "1.2.3": "1 1.2 1.2.3", "v1.2.3,latest": "1 1.2 1.2.3 latest", "v0.1.0": "0 0.1 0.1.0", "v1.2.3-rc1": "1.2.3-rc1", "v1.2.3_rc1": "1.2.3-rc1",
		"latest": "latest", "v1.2.3+linux_amd64": "1-linux-amd64 1.2-linux-amd64 1.2.3-linux-amd64", "v2": "2 2.0 2.0.0", "no_version": "no_version",
	} {
		r, problems := tags.Make(on("push refs/heads/x"), tags.Settings{Images: []string{"o/a"}, Explicit: strings.Split(tag, ","), Expand: true})
		require.Empty(t, problems)
		require.Equal(t, want, strings.Join(r.Tags, " "), tag)
	}
}

func TestGitLabsHabits(t *testing.T) {
	for _, c := range []struct{ ref, want string }{
		{"refs/heads/master", "master latest"},
		{"refs/heads/feature/Some_Thing", "feature-some-thing"},
		{"refs/heads/-x-", "x"},
		{"refs/heads/" + strings.Repeat("a", 62) + "-b", strings.Repeat("a", 62)},
		{"refs/heads/Ünïcode", "n-code"},
		{"refs/tags/v1.2.3", "v1.2.3"},
		{"refs/tags/release/1", "release-1"},
	} {
		t.Run(c.ref, func(t *testing.T) {
			r, problems := tags.Make(on("push "+c.ref), tags.Settings{Preset: tags.GitLab})
			require.Empty(t, problems)
			require.Equal(t, c.want, strings.Join(r.Tags, " "))
		})
	}
}
