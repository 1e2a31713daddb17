package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core"
)

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
		"keys":                               {[]string{"x=/k=1,/l"}, nil, []core.SSH{{ID: "x", Paths: []string{"/k=1", "/l"}}}, ""},
		"no agent in the environment":        {[]string{"default"}, nil, nil, "no agent is at $SSH_AUTH_SOCK"},
		"no id":                              {[]string{"=/s"}, env, nil, "write default"},
		"one id twice":                       {[]string{"x=/s", "x=/t"}, env, nil, "two agents"},
		"an empty path":                      {[]string{"x=/s,"}, env, nil, "a path is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			check := &checker{}
			got := sshAgents(check, c.given, c.env)
			if c.err != "" {
				require.ErrorContains(t, check.err(), c.err)
				return
			}
			require.NoError(t, check.err())
			require.Equal(t, c.want, got)
		})
	}
}
