package main

import (
	"slices"
	"strings"

	"github.com/layerwright/layerwright/core"
)

// sshAgents reads what docker buildx reads: ID, with the agent of the
// environment, or ID=SOCKET, or ID=KEY,KEY.
func sshAgents(c *checker, given []string, env map[string]string) (list []core.SSH) {
	seen := map[string]bool{}
	for _, text := range given {
		id, value, _ := strings.Cut(text, "=")
		if id == "" {
			c.add("--ssh %s: write default, ID=SOCKET or ID=KEYFILE", text)
			continue
		}
		if seen[id] {
			c.add("--ssh: two agents have the id %s", id)
		}
		seen[id] = true
		s := core.SSH{ID: id, Paths: strings.Split(value, ",")}
		switch {
		case value == "":
			s.Paths = []string{env["SSH_AUTH_SOCK"]}
			if s.Paths[0] == "" {
				c.add("--ssh %s: no agent is at $SSH_AUTH_SOCK: start one with ssh-agent, or write %s=KEYFILE", text, id)
			}
		case slices.Contains(s.Paths, ""):
			c.add("--ssh %s: a path is empty", text)
		}
		list = append(list, s)
	}
	return list
}
