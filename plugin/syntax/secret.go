package syntax

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/layerwright/layerwright/core"
)

// MaxSecret is BuildKit's limit for a secret, in bytes.
const MaxSecret = 500 << 10

// Secret is one secret of RUN --mount=type=secret, and the place of its value: Value
// itself, or Variable, or File.
type Secret struct {
	ID             string
	Value          []byte
	Variable, File string
}

// DockerSecret is that of id=ID,src=FILE or id=ID,env=VARIABLE. With an id alone it is
// in the variable of that name, and where env has none in the file.
func DockerSecret(text string, env map[string]string) (Secret, error) {
	fields, err := Fields(text)
	if err != nil {
		return Secret{}, fmt.Errorf("write id=ID,src=FILE or id=ID,env=VARIABLE: %w", err)
	}
	var s Secret
	kind := ""
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		v := fields[k]
		switch k {
		case "id":
			s.ID = v
		case "src", "source":
			s.File = v
		case "env":
			s.Variable = v
		case "type":
			kind = v
		default:
			return Secret{}, fmt.Errorf("unknown key %q: use id, src and env", k)
		}
		if v == "" {
			return Secret{}, fmt.Errorf("%s= is empty", k)
		}
	}
	if kind == "env" && s.Variable == "" { // docker's way to write it
		s.Variable, s.File = s.File, ""
	}
	switch {
	case s.ID == "":
		return Secret{}, errors.New("an id is missing: write id=ID,src=FILE or id=ID,env=VARIABLE")
	case kind != "" && kind != "env" && kind != "file":
		return Secret{}, errors.New("unknown type: use file or env")
	case s.Variable != "" && s.File != "":
		return Secret{}, errors.New("give src or env, not both")
	}
	if s.Variable == "" && s.File == "" {
		if _, ok := env[s.ID]; ok {
			s.Variable = s.ID
		} else {
			s.File = s.ID
		}
	}
	return s, nil
}

// Secrets collects a build's secrets, of which no two have one id. Values are in none
// of its errors, which name a secret by its id, or by its number where it has none.
type Secrets struct {
	// Env has the variables that hold values. ReadFile reads those that are in files;
	// when nil, the file is handed on.
	Env      map[string]string
	ReadFile func(path string) ([]byte, error)
	List     []core.Secret
}

// Docker adds those of a list in docker's form (DockerSecret).
func (s *Secrets) Docker(list []string) []error {
	return s.add(list, func(text string) (Secret, error) { return DockerSecret(text, s.Env) })
}

// Values, Variables and Files add those of ID=VALUE, ID=VARIABLE and ID=PATH.
func (s *Secrets) Values(list []string) []error {
	return s.pairs(list, "ID=VALUE", func(id, v string) Secret { return Secret{ID: id, Value: []byte(v)} })
}

func (s *Secrets) Variables(list []string) []error {
	return s.pairs(list, "ID=VARIABLE", func(id, v string) Secret { return Secret{ID: id, Variable: strings.TrimSpace(v)} })
}

func (s *Secrets) Files(list []string) []error {
	return s.pairs(list, "ID=PATH", func(id, v string) Secret { return Secret{ID: id, File: strings.TrimSpace(v)} })
}

func (s *Secrets) pairs(list []string, form string, of func(id, v string) Secret) []error {
	return s.add(list, func(text string) (Secret, error) {
		id, v, err := Pair(text)
		if secret := of(id, v); err == nil && (secret.Value != nil || secret.Variable+secret.File != "") {
			return secret, nil
		}
		return Secret{}, errors.New("write " + form)
	})
}

func (s *Secrets) add(list []string, read func(string) (Secret, error)) (errs []error) {
	for i, text := range list {
		secret, err := read(text)
		if err != nil {
			errs = append(errs, wrong(i, "%w", err))
			continue
		}
		for _, other := range s.List {
			if other.ID == secret.ID {
				errs = append(errs, fmt.Errorf("two secrets have the id %s", secret.ID))
			}
		}
		found, err := s.find(secret)
		if err != nil {
			errs = append(errs, fmt.Errorf("secret %s: %w", secret.ID, err))
		}
		s.List = append(s.List, found)
	}
	return errs
}

// find gives a secret its value.
func (s *Secrets) find(secret Secret) (out core.Secret, err error) {
	out = core.Secret{ID: secret.ID, Value: secret.Value}
	switch {
	case secret.Variable != "":
		value, ok := s.Env[secret.Variable]
		if !ok {
			return out, fmt.Errorf("the variable %s is not set", secret.Variable)
		}
		out.Value = []byte(value)
	case secret.File != "" && s.ReadFile == nil:
		out.File = secret.File
	case secret.File != "":
		if out.Value, err = s.ReadFile(secret.File); err != nil {
			return out, err
		}
	}
	if len(out.Value) > MaxSecret {
		return out, errors.New("it is larger than 500 KiB")
	}
	return out, nil
}
