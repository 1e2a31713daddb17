package random

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
)

// New makes the plan of a seed.
func New(seed uint64) Plan {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0x6c617965)), plan: Plan{Seed: seed}}
	g.context()
	for i := range 1 + g.IntN(4) {
		g.stage(i)
	}
	return g.plan
}

type generator struct {
	*rand.Rand
	plan Plan
	// links counts dedicated hard links, so that nobody writes to one later.
	links int
}

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

// chance is true in n of 100 cases.
func (g *generator) chance(n int) bool { return g.IntN(100) < n }

// names are parts of paths in contexts and images.
var names = []string{"a", "b", "c.txt", "d e", "ü", ".hidden", "x*y", "[z]", "Q"}

// context makes files, directories and links.
func (g *generator) context() {
	var dirs, files []string
	at := func() string {
		name := pick(g, names...)
		if len(dirs) > 0 && g.chance(60) {
			return pick(g, dirs...) + name
		}
		return name
	}
	taken := map[string]bool{"Dockerfile": true, ".dockerignore": true}
	for range 3 + g.IntN(9) {
		p := at()
		if taken[p] || taken[p+"/"] {
			continue
		}
		taken[p] = true
		f := File{Path: p, Mode: pick(g, os.FileMode(0o644), 0o755, 0o600, 0o444, 0o777, 0o4755), Time: 1_000_000_000 + g.Int64N(500_000_000)}
		switch n := g.IntN(10); {
		case n < 3:
			f.Path, f.Mode = p+"/", pick(g, os.FileMode(0o755), 0o700, 0o1777, 0o750)
			dirs = append(dirs, f.Path)
		case n < 4:
			f.Link = pick(g, "a", "../a", "/etc/motd", "missing", "b/c.txt", "..")
		case n < 5 && len(files) > 0:
			f.Hard = pick(g, files...)
		default:
			f.Data = strings.Repeat(pick(g, "x", "hello\n", "0123456789"), g.IntN(40))
			files = append(files, p)
		}
		g.plan.Context = append(g.plan.Context, f)
	}
	if g.chance(20) {
		for range 1 + g.IntN(3) {
			g.plan.Ignore = append(g.plan.Ignore, pick(g, "a", "**/b", "*.txt", "!c.txt", "d e", "**/.hidden", "b/*", "!b/a", "# comment", "/a/", "?"))
		}
	}
}

func (g *generator) stage(i int) {
	s := Stage{Name: fmt.Sprintf("s%d", i), From: "${BASE}"}
	if i > 0 && g.chance(40) {
		s.From = fmt.Sprintf("s%d", g.IntN(i))
	} else if g.chance(12) {
		s.From = "scratch"
	}
	shell := s.From != "scratch"
	if s.From != "${BASE}" && s.From != "scratch" {
		shell = g.plan.Stages[slices.IndexFunc(g.plan.Stages, func(o Stage) bool { return o.Name == s.From })].shell(g.plan.Stages)
	}
	for range 1 + g.IntN(6) {
		st := g.step(i, shell)
		s.Steps = append(s.Steps, st)
		shell = shell && !slices.Contains(st.Flags, "--link")
	}
	g.plan.Stages = append(g.plan.Stages, s)
}

// shell says whether commands may run in a stage: it has a shell, and no merged
// layers, whose files have times of whole seconds here (docs/differences.md).
func (s Stage) shell(all []Stage) bool {
	for {
		if slices.ContainsFunc(s.Steps, func(st Step) bool { return slices.Contains(st.Flags, "--link") }) {
			return false
		}
		if s.From == "${BASE}" {
			return true
		}
		i := slices.IndexFunc(all, func(o Stage) bool { return o.Name == s.From })
		if i < 0 {
			return false
		}
		s = all[i]
	}
}

func (g *generator) step(stage int, shell bool) Step {
	n := g.IntN(100)
	switch {
	case n < 45 && shell:
		return g.run(stage)
	case n < 75:
		return g.copy(stage)
	case n < 80:
		return Step{Instruction: "WORKDIR", Parts: []string{pick(g, "/w", "sub", "/w/x", "../up", "/home/app", "/l/in")}}
	case n < 83:
		return Step{Instruction: "USER", Parts: []string{pick(g, "root", "app", "1000", "1000:1001", "0")}}
	case n < 87:
		return Step{Instruction: "ENV", Parts: []string{pick(g, "A=1", `B="x y"`, "C=${A:-none}", "D=${A:+set}", "PATH=/bin:/usr/bin", "E=$D/e")}}
	case n < 89:
		return Step{Instruction: "ARG", Parts: []string{pick(g, "V=1", "A", "TARGETARCH", "W=${V}x")}}
	case n < 92:
		return Step{Instruction: "COPY", Parts: []string{"<<EOF", pick(g, "/h/doc", "/doc", "doc")}, Heredoc: pick(g, "one\ntwo $A\n", "") + "EOF\n"}
	case n < 94:
		return Step{Instruction: "LABEL", Parts: []string{pick(g, "a=b", `"k e"="v w"`, "x=$A y=2")}}
	case n < 95:
		return Step{Instruction: "EXPOSE", Parts: []string{pick(g, "80", "53/udp", "8000-8002")}}
	case n < 96:
		return Step{Instruction: "VOLUME", Parts: []string{pick(g, "/vol", `["/v1","/v2"]`)}}
	case n < 97:
		return Step{Instruction: "STOPSIGNAL", Parts: []string{pick(g, "SIGTERM", "9")}}
	case n < 98:
		return Step{Instruction: "HEALTHCHECK", Parts: []string{pick(g, "NONE", "--interval=5s CMD true", `CMD ["x","y"]`)}}
	case n < 98+g.IntN(2):
		return Step{Instruction: pick(g, "CMD", "ENTRYPOINT"), Parts: []string{pick(g, `["a","b"]`, "run me $A")}}
	}
	if shell && g.chance(40) {
		return Step{Instruction: "SHELL", Parts: []string{pick(g, `["/bin/sh", "-ec"]`, `["/bin/sh", "-c"]`)}}
	}
	return Step{Instruction: "ONBUILD", Parts: []string{pick(g, "ENV O=1", "WORKDIR /onbuild", "LABEL o=1", "COPY . /onbuild/", "RUN echo on > /onbuilt")}}
}

// places are paths in images: some of the base, some that other steps make.
var places = []string{"/d", "/d/a", "/d/b", "/d/b/c", "/l", "/l/in", "/etc/motd", "/etc/new", "/home/app", "/home/app/f", "/w", "/w/x", "/tmp/t",
	"/usr/local/bin/t", "'/s p'", "/ü", "/f", "/root", "/bin/cat"}

func (g *generator) place() string { return pick(g, places...) }

// command is one operation of a shell on the file system. Its result depends on
// nothing but the tree. FIFOs have places of their own: whoever opens one waits.
func (g *generator) command() string {
	p, q := g.place(), g.place()
	g.links++
	n := g.links
	return pick(g,
		"mkdir -p "+p, "mkdir -p "+p+"/deep/er", "rm -rf "+p, "rm -f "+p, "rmdir "+p,
		"echo "+pick(g, "one", "two two", "3")+" > "+p, "echo more >> "+p, "rm -rf "+p+"; mkdir "+p, "rm -rf "+p+"; echo f > "+p,
		"mv "+p+" "+q, "cp -a "+p+" "+q, "ln -s "+pick(g, "/d", "../etc", "missing", "a", "/home/app")+" "+p, "ln -sfn "+q+" "+p,
		fmt.Sprintf("mkdir -p /hl; echo %d > /hl/a%[1]d; ln /hl/a%[1]d /hl/b%[1]d", n),
		fmt.Sprintf("mkdir -p /hl/sub; echo %d > /hl/c%[1]d; ln /hl/c%[1]d /hl/sub/c%[1]d; rm /hl/c%[1]d", n), "rm -rf /hl",
		"chmod "+pick(g, "600", "755", "4755", "1777", "000", "u+x", "g-w")+" "+p, "chmod -R go-rwx "+p,
		"chown "+pick(g, "app", "1000:1001", "0:0", "70000:70000")+" "+p, "chown -h app "+p,
		"touch -d '2001-02-03 04:05:06' "+p, "touch "+p, "truncate -s 5000 "+p, "dd if=/dev/zero of="+p+" bs=1k count=3 seek=9",
		fmt.Sprintf("mkdir -p /fifo; mkfifo /fifo/%d", n), "cp "+p+" "+q, ": > "+p, "find "+p+" -type f -exec chmod a+r {} +", "tar -cf - -C "+p+" . | tar -xf - -C "+q,
		"rm -rf "+p+"/*", ": moved and moved back: docs/differences.md", "test -e "+p+" && echo yes > "+q, "ls -1 "+p+" > /listing",
		"echo $A$B$V > /env", "id -u > /id", "pwd > /pwd", "umask 077; echo u > "+p, "mknod "+p+" c 1 3", "sort "+p+" > "+q)
}

func (g *generator) run(stage int) Step {
	s := Step{Instruction: "RUN"}
	for range 1 + g.IntN(5) {
		s.Parts = append(s.Parts, g.command())
	}
	if g.chance(25) {
		switch g.IntN(5) {
		case 0:
			s.Flags = append(s.Flags, "--mount=type=bind,target=/mnt"+pick(g, "", ",rw"))
			s.Parts = append(s.Parts, pick(g, "ls -1a /mnt > /seen", "cp -a /mnt/a /d/", "echo x > /mnt/written", "rm -rf /mnt/a"))
		case 1:
			s.Flags = append(s.Flags, "--mount=type=tmpfs,target="+pick(g, "/t", "/d", "/tmp"))
			s.Parts = append(s.Parts, "echo gone > "+pick(g, "/t/x", "/d/x", "/tmp/x"))
		case 2:
			s.Flags = append(s.Flags, "--mount=type=cache,target="+pick(g, "/c", "/d/c"))
			s.Parts = append(s.Parts, "ls -1a /c > /cached; echo c > /c/kept")
		case 3:
			if stage > 0 {
				s.Flags = append(s.Flags, fmt.Sprintf("--mount=type=bind,from=s%d,target=/mnt", g.IntN(stage)))
				s.Parts = append(s.Parts, "ls -1 /mnt > /seen; cp -a /mnt/d /from")
			}
		case 4:
			s.Flags = append(s.Flags, "--network=default")
		}
	}
	if g.chance(8) {
		s.Parts, s.Heredoc = []string{"<<EOF"}, pick(g, "", "#!/bin/sh\n", "#!/bin/busybox sh\n")+strings.Join(append(s.Parts, ":"), "\n")+"\nEOF\n"
	}
	return s
}

func (g *generator) copy(stage int) Step {
	s := Step{Instruction: "COPY"}
	var sources []string
	if stage > 0 && g.chance(45) {
		s.Flags = append(s.Flags, "--from="+g.based(stage))
		for range 1 + g.IntN(2) {
			if g.chance(85) { // what every stage on the base has
				sources = append(sources, pick(g, "/etc", "/etc/motd", "/home", "/usr/local", "/bin/busybox", "/home/app", "/usr", "/etc/./motd", "/h*", "/etc/*o*"))
				continue
			}
			sources = append(sources, strings.Trim(g.place(), "'"))
		}
	} else {
		if g.chance(15) {
			s.Instruction = "ADD"
		}
		for range 1 + g.IntN(3) {
			sources = append(sources, g.source())
		}
	}
	if g.chance(20) {
		s.Flags = append(s.Flags, "--chown="+pick(g, "1000", "1000:1001", "app", "app:staff", "0:0", "70000"))
	}
	if g.chance(15) {
		s.Flags = append(s.Flags, "--chmod="+pick(g, "600", "755", "0777", "u+x,go-w", "a=rX"))
	}
	if g.chance(15) {
		s.Flags = append(s.Flags, "--link")
	}
	// BuildKit refuses a whole context with --parents, and with --exclude where a
	// link in it leads nowhere (docs/differences.md).
	whole := slices.ContainsFunc(sources, func(s string) bool { return strings.Trim(s, "./*") == "" })
	if g.chance(10) && s.Instruction == "COPY" && !whole {
		s.Flags = append(s.Flags, "--parents")
	}
	if g.chance(12) && !whole {
		s.Flags = append(s.Flags, "--exclude="+pick(g, "*.txt", "a", "**/b", "d*", "c"))
	}
	dest := pick(g, "/", "/d/", "/d", "/new/", "/new/name", ".", "./", "rel/", "/l/", "/w/x/", "/home/app/")
	if g.chance(5) {
		dest = pick(g, "/etc/motd", "/bin/cat/", "/etc/motd/")
	}
	if len(sources) > 1 && !strings.HasSuffix(dest, "/") && dest != "." && g.chance(90) {
		dest += "/"
	}
	if slices.ContainsFunc(append(sources, dest), func(w string) bool { return strings.ContainsAny(w, " ") }) {
		for i := range sources {
			sources[i] = fmt.Sprintf("%q", sources[i])
		}
		s.Parts = []string{"[" + strings.Join(append(sources, fmt.Sprintf("%q", dest)), ", ") + "]"}
		return s
	}
	s.Parts = append(sources, dest)
	return s
}

// based is an earlier stage, one on the base if that can be had.
func (g *generator) based(stage int) string {
	name := fmt.Sprintf("s%d", g.IntN(stage))
	for range 3 {
		if i := slices.IndexFunc(g.plan.Stages, func(s Stage) bool { return s.Name == name }); g.plan.Stages[i].shell(g.plan.Stages) {
			break
		}
		name = fmt.Sprintf("s%d", g.IntN(stage))
	}
	return name
}

// source is a path of the context, now and then one that is not there.
func (g *generator) source() string {
	if g.chance(4) {
		return pick(g, "missing", "a*", "**/a", "./a", "/b")
	}
	if len(g.plan.Context) == 0 || g.chance(20) {
		return pick(g, ".", "*", "./")
	}
	f := pick(g, g.plan.Context...)
	for range 3 { // most links lead nowhere
		if f.Link == "" || g.chance(15) {
			break
		}
		f = pick(g, g.plan.Context...)
	}
	p := strings.TrimSuffix(f.Path, "/")
	if g.chance(95) { // a name, not a pattern
		p = strings.NewReplacer("[", "[[]", "*", `\*`).Replace(p)
	}
	return p
}
