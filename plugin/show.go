package plugin

import (
	"fmt"
	"io"
	"strings"

	"github.com/layerwright/layerwright/plugin/syntax"
)

// WriteSettings shows each setting that was given, its value and where it is
// from: --print-settings. Secret values are hidden, and so are logins in URLs and the
// values of build arguments, which people put secrets into all the same.
func WriteSettings(w io.Writer, values Values) error {
	for _, f := range Fields() {
		v := values[f.Name]
		list := given(v.Values)
		source := v.Source
		if len(list) == 0 {
			if f.Default == "" {
				continue
			}
			list, source = []string{f.Default}, "default"
		}
		for _, text := range list {
			if f.Secret || f.Name == "build-args" {
				name, _, isPair := strings.Cut(text, "=")
				if text = "***"; isPair && f.List() {
					text = name + "=***"
				}
			}
			if _, err := fmt.Fprintf(w, "%s: %s  (%s)\n", f.Name, strings.ReplaceAll(syntax.WithoutURLSecrets(strings.TrimSpace(text)), "\n", `\n`), source); err != nil {
				return fmt.Errorf("show settings: %w", err)
			}
		}
	}
	return nil
}
