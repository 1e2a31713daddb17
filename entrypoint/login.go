package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/layerwright/layerwright/core"
)

const loginHelp = `layerwright login -u USER --password-stdin [flags] [REGISTRY]
layerwright logout [REGISTRY]

login tries a login at a registry (Docker Hub by default) and, if it is taken,
keeps it in config.json of $DOCKER_CONFIG or ~/.docker, for its owner only, or with
the credential helper that this file names. logout removes it from there.

  -u, --username USER       the user
      --password-stdin      read the password from standard input
  -p, --password PASSWORD   the password; others on this machine may see it

and the flags about registries that build has (layerwright build --help-all).
`

// loginCommand is "layerwright login".
func (p *process) loginCommand() *cobra.Command {
	f := &flags{}
	var user, password string
	var fromStdin bool
	c := &cobra.Command{Use: "login [REGISTRY]", Args: atMostOneRegistry, RunE: func(c *cobra.Command, args []string) error {
		f.given(c)
		check := &checker{}
		r := f.registrySettings(check, p.env).Everywhere()
		switch {
		case user == "":
			check.add("--username is missing")
		case fromStdin && f.set["password"]:
			check.add("--password and --password-stdin: give one of them")
		case !fromStdin && !f.set["password"]:
			check.add("the password is missing: give --password-stdin, and the password on standard input")
		}
		if err := check.err(); err != nil {
			return err
		}
		if fromStdin {
			text, err := io.ReadAll(io.LimitReader(p.stdin, maxPassword))
			if err != nil {
				return usage("read the password from standard input: %w", err)
			}
			password = strings.TrimRight(string(text), "\r\n")
		} else {
			fmt.Fprintln(p.stderr, "--password can be seen by others on this machine: --password-stdin cannot.")
		}
		host, where, err := core.Login(c.Context(), strings.Join(args, ""), user, password, r)
		if err == nil {
			fmt.Fprintf(p.stdout, "%s takes the login; it is kept in %s.\n", host, where)
		}
		return p.end(c, err)
	}}
	fs := c.Flags()
	fs.StringVarP(&user, "username", "u", "", "")
	fs.StringVarP(&password, "password", "p", "", "")
	fs.BoolVar(&fromStdin, "password-stdin", false, "")
	f.registry.register(fs)
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), loginHelp) })
	return c
}

// maxPassword is more than any token has, and less than a wrong file.
const maxPassword = 1 << 20

// logoutCommand is "layerwright logout".
func (p *process) logoutCommand() *cobra.Command {
	c := &cobra.Command{Use: "logout [REGISTRY]", Args: atMostOneRegistry, RunE: func(c *cobra.Command, args []string) error {
		where, found, err := core.Logout(c.Context(), strings.Join(args, ""), p.env)
		switch {
		case err != nil:
		case found:
			fmt.Fprintf(p.stdout, "The login is removed from %s.\n", where)
		default:
			fmt.Fprintf(p.stdout, "There is no such login in %s.\n", where)
		}
		return p.end(c, err)
	}}
	c.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), loginHelp) })
	return c
}

func atMostOneRegistry(_ *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usage("give one registry, such as registry.example or registry.example:5000")
	}
	return nil
}
