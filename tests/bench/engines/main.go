// Command engines measures what a second BuildKit brings: two platforms whose steps
// mostly sleep, by two engines at once, against the slower one alone and a merge.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layerwright/layerwright/tests/parts"
)

const dockerfile = `FROM %s
ARG TARGETARCH
RUN if [ $TARGETARCH = arm64 ]; then sleep 2; else sleep 3; fi; echo $TARGETARCH >/arch
RUN sleep 1
`

func main() {
	rounds := flag.Int("n", 7, "rounds")
	flag.Parse()
	if err := measure(context.Background(), *rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type bench struct {
	binary, repo, dir string
	engines           []string
}

func measure(ctx context.Context, rounds int) (err error) {
	set, err := parts.New()
	if err != nil {
		return err
	}
	defer set.Close()
	reg, err := set.Registry()
	if err != nil {
		return err
	}
	b := &bench{repo: reg.Addr + "/engines", dir: filepath.Join(set.Dir(), "context")}
	if b.binary, err = set.Binary(); err != nil {
		return err
	}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		kit, err := set.AnotherBuildKit(strings.ReplaceAll(platform, "/", "-"), reg.Addr)
		if err != nil {
			return err
		}
		b.engines = append(b.engines, "buildkit="+kit.Addr+",platforms="+platform)
	}
	base := reg.Addr + "/base:1"
	if err := errors.Join(set.PushSmall(ctx, base), os.Mkdir(b.dir, 0o755), os.WriteFile(filepath.Join(b.dir, "Dockerfile"), fmt.Appendf(nil, dockerfile, base), 0o644)); err != nil {
		return err
	}
	took := map[string][]time.Duration{}
	for i := range rounds + 1 {
		for _, what := range []string{"linux/amd64", "linux/arm64", "merge", "linux/amd64,linux/arm64"} {
			d, err := b.run(ctx, what)
			if err != nil {
				return err
			}
			if i > 0 { // the first round pulls the base
				took[what] = append(took[what], d)
			}
		}
	}
	amd, arm, merge, both := median(took["linux/amd64"]), median(took["linux/arm64"]), median(took["merge"]), median(took["linux/amd64,linux/arm64"])
	limit := max(amd, arm) + merge
	fmt.Printf("| linux/amd64 alone | linux/arm64 alone | merge | both by two engines | both ÷ (slower + merge) |\n|---:|---:|---:|---:|---:|\n| %s | %s | %s | %s | %.2f |\n",
		seconds(amd), seconds(arm), seconds(merge), seconds(both), both.Seconds()/limit.Seconds())
	return nil
}

// run is one build of platforms, or a merge of what was built before.
func (b *bench) run(ctx context.Context, what string) (time.Duration, error) {
	var args []string
	switch what {
	case "merge":
		args = []string{"merge", "-d", b.repo + ":merged", b.repo + ":linux-amd64", b.repo + ":linux-arm64"}
	default:
		args = []string{"build", "--no-cache", "--platform", what, "-d", b.repo + ":" + strings.NewReplacer("/", "-", ",", "-").Replace(what), b.dir}
		for _, e := range b.engines {
			args = append(args, "--engine", e)
		}
	}
	start := time.Now()
	out, err := exec.CommandContext(ctx, b.binary, args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("layerwright %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return time.Since(start), nil
}

func median(list []time.Duration) time.Duration {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
