package drone

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v10"

	"github.com/layerwright/layerwright/plugin"
)

// own are settings of Drone's plugins that are not simply a neutral one by another
// name.
type own struct {
	NoPush            bool   `env:"NO_PUSH" default:"false" example:"true" help:"true pushes nothing"`
	DryRun            bool   `env:"DRY_RUN" default:"false" example:"true" help:"true pushes nothing"`
	PushOnly          bool   `env:"PUSH_ONLY" default:"false" example:"true" help:"true builds nothing and pushes the image of source_tar_path"`
	ExpandRepo        bool   `env:"EXPAND_REPO" default:"false" example:"true" help:"true puts registry before repo; for registries of clouds that is always done"`
	BuildArgsNew      lines  `env:"BUILD_ARGS_NEW" example:"A=1,2;B=3" help:"build arguments, separated by semicolons"`
	MultipleBuildArgs bool   `env:"MULTIPLE_BUILD_ARGS" default:"false" example:"true" help:"true takes build_args_new, and not build_args where both are set"`
	BuildArgsFromEnv  list   `env:"BUILD_ARGS_FROM_ENV" example:"VERSION,NPM_REGISTRY" help:"names of variables that become build arguments"`
	LabelSchema       pairs  `env:"LABEL_SCHEMA" example:"vendor=Us" help:"labels, to which org.opencontainers.image. is put in front"`
	RepoLink          string `env:"REPO_LINK" default:"$DRONE_REPO_LINK" example:"https://git.example/team/app" help:"URL of the project, for the labels"`
	Secret            string `env:"SECRET" example:"id=npm,env=NPM_TOKEN" help:"one secret of RUN --mount=type=secret: id=, and env= or src="`
	TagsFile          string `env:"TAGS_FILE" default:".tags" example:"build/tags" help:"file with tags, used where there are no tags"`
	EnvFile           string `env:"ENV_FILE" example:".env" help:"file of KEY=VALUE lines that are variables of this step, too; those that are set already stay"`
	Logins            logins `env:"LOGINS" example:"[{\"registry\":\"r.example\",\"username\":\"u\",\"password\":\"…\"}]" help:"logins at several registries: a list of registry, username and password"`
	Config            string `env:"CONFIG" example:"{\"auths\":{…}}" help:"text of a config.json"`
	BaseRegistry      string `env:"BASE_IMAGE_REGISTRY" default:"docker.io" example:"registry.example" help:"registry of base images (also docker_registry)"`
	BaseUsername      string `env:"BASE_IMAGE_USERNAME" example:"robot" help:"name to log in there (also docker_username)"`
	BasePassword      string `env:"BASE_IMAGE_PASSWORD" example:"…" help:"password to log in there (also docker_password)"`
	Location          string `env:"LOCATION" example:"europe-west1" help:"of Google's Artifact Registry: the registry is LOCATION-docker.pkg.dev"`
	ArtifactFile      string `env:"ARTIFACT_FILE" example:"artifact.json" help:"file that gets the images that were pushed, as JSON of kind docker/v1"`
	RegistryType      string `env:"REGISTRY_TYPE" default:"by the registry" example:"ECR" help:"type of registry in the artifact file: Docker, ECR, GCR, GAR or ACR"`
}

// ownSetting describes one of them.
type ownSetting struct{ name, field, help, def, example string }

func ownSettings() (out []ownSetting) {
	t := reflect.TypeFor[own]()
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		out = append(out, ownSetting{tag.Get("env"), t.Field(i).Name, tag.Get("help"), tag.Get("default"), tag.Get("example")})
	}
	return out
}

// parseOwn reads them all, and says of each what is wrong with it.
func parseOwn(given map[string]string, problems map[string]error) (o own) {
	err := env.ParseWithOptions(&o, env.Options{Environment: given})
	var all env.AggregateError
	if err == nil {
		return o
	}
	if !errors.As(err, &all) {
		problems["settings"] = err
		return o
	}
	fields := map[string]string{}
	for _, s := range ownSettings() {
		fields[s.field] = s.name
	}
	for _, one := range all.Errors {
		var parse env.ParseError
		if !errors.As(one, &parse) {
			problems["settings"] = one
			continue
		}
		name := fields[parse.Name]
		why := parse.Err
		if parse.Type.Kind() == reflect.Bool {
			why = fmt.Errorf("%q is neither true nor false", given[name])
		}
		problems[strings.ToLower(name)] = why
	}
	return o
}

// list has several values: JSON, or separated by commas.
type list []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *list) UnmarshalText(text []byte) (err error) {
	*l, err = split("", string(text))
	return err
}

// pairs are KEY=VALUE, JSON, or separated by commas.
type pairs []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *pairs) UnmarshalText(text []byte) (err error) {
	*p, err = split("labels", string(text))
	return err
}

// lines are values separated by semicolons, as drone-docker has them, or JSON.
type lines []string

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *lines) UnmarshalText(text []byte) error {
	all, isJSON, err := fromJSON(string(text))
	if !isJSON {
		all = strings.Split(string(text), ";")
	}
	*l = all
	return err
}

// logins are those of a list, in JSON.
type logins []plugin.Login

// UnmarshalText implements encoding.TextUnmarshaler. Its error has nothing of the
// text, which has passwords.
func (l *logins) UnmarshalText(text []byte) error {
	var all []plugin.Login
	if json.Unmarshal(text, &all) != nil {
		return errors.New("not a JSON list of objects with registry, username and password")
	}
	for i, one := range all {
		if one.Registry == "" {
			return fmt.Errorf("number %d: the registry is missing", i+1)
		}
		if one.Username == "" && one.Password != "" {
			return fmt.Errorf("number %d: the username is missing", i+1)
		}
	}
	*l = all
	return nil
}
