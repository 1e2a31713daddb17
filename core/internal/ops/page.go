package ops

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"github.com/layerwright/layerwright/core/internal/fault"
	"github.com/layerwright/layerwright/core/internal/graph"
)

// notAPage refuses ADD --unpack of a URL that has answered a page for people, so
// often one to log in, in place of the archive: BuildKit would add the page.
// source is the tree with the one file that was fetched.
func notAPage(v *graph.Vertex, a *pb.FileAction, source string) error {
	c := a.GetCopy()
	if c == nil || !c.AttemptUnpackDockerCompatibility || a.SecondaryInput < 0 || a.SecondaryInput >= int64(len(v.Inputs)) {
		return nil
	}
	from := v.Inputs[a.SecondaryInput].Vertex.Op.GetSource()
	if from == nil || !strings.HasPrefix(from.Identifier, "http://") && !strings.HasPrefix(from.Identifier, "https://") {
		return nil
	}
	f, err := os.OpenInRoot(source, filepath.Clean("/" + c.Src)[1:])
	if err != nil {
		return nil // the copy itself says what is wrong
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 512))
	if err != nil {
		return nil
	}
	head = bytes.ToLower(bytes.TrimLeft(head, "\ufeff \t\r\n"))
	if !bytes.HasPrefix(head, []byte("<!doctype html")) && !bytes.HasPrefix(head, []byte("<html")) {
		return nil
	}
	return fault.New(fault.User, "the URL gave an HTML page, and not an archive to unpack").
		With("Name the URL of the archive itself, and look whether it needs credentials.")
}
