// Command sshlist is what a step uses in TestSSHAgent: it prints the
// fingerprints of the agent at $SSH_AUTH_SOCK, and whether it may be changed.
package main

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func main() {
	if err := list(os.Getenv("SSH_AUTH_SOCK")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func list(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := agent.NewClient(conn)
	keys, err := c.List()
	if err != nil {
		return err
	}
	for _, k := range keys {
		sig, err := c.Sign(k, []byte("data"))
		if err != nil {
			return err
		}
		if err := k.Verify([]byte("data"), sig); err != nil {
			return err
		}
		fmt.Println("key", ssh.FingerprintSHA256(k))
	}
	if err := c.RemoveAll(); err == nil {
		return fmt.Errorf("the agent at %s let its keys be removed", socket)
	}
	fmt.Println("keys cannot be removed")
	return nil
}
