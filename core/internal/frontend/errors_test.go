package frontend

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/layerwright/layerwright/core/internal/fault"
)

func TestErrorsNamePlaceAndCause(t *testing.T) {
	for _, c := range []struct {
		dockerfile string
		line       int // 0: none
		words      string
	}{
		{"", 0, "the Dockerfile cannot be empty"},
		{"# only a comment\n", 1, "file with no instructions"},
		{"FORM base\n", 1, "unknown instruction: FORM (did you mean FROM?)"},
		{"FROM base\nRUM true\n", 2, "unknown instruction: RUM (did you mean RUN?)"},
		{"\x00\x01", 1, "unknown instruction"},
		{"FROM\n", 1, "FROM requires either one or three arguments"},
		{"RUN true\n", 1, "no build stage in current context"},
		{"FROM base\nCOPY --frm=x a b\n", 2, "unknown flag: --frm (did you mean from?)"},
		{"FROM base\nCOPY a\n", 2, "COPY requires at least two arguments"},
		{"FROM base\nRUN --mount=type=cach,target=/x true\n", 2, `unsupported mount type "cach" (did you mean cache?)`},
		{"FROM base\nRUN --mount=type=secret true\n", 2, "invalid secret mount"},
		{"FROM base\nRUN --mount=target=/x,foo=1 true\n", 2, "unexpected key 'foo'"},
		{"FROM missing:1\n", 1, "manifest unknown"},
		{"FROM base\n\nCOPY --from=missing:1 a b\n", 3, "manifest unknown"},
		{"FROM base\nRUN a && \\\n  b\nRUN --mount=type=bind,from=missing:1,target=/x true\n", 4, "manifest unknown"},
		{"FROM base\nENV a\n", 2, "ENV must have two arguments"},
		{"FROM base\nEXPOSE x\n", 2, "invalid containerPort: x"},
		{"FROM base\nHEALTHCHECK --interval=x CMD x\n", 2, "invalid duration"},
		{"FROM base\nONBUILD FROM x\n", 2, "FROM isn't allowed as an ONBUILD trigger"},
		{"FROM base\nSHELL sh\n", 2, "SHELL requires the arguments to be in JSON form"},
		{"FROM base\nSTOPSIGNAL x\n", 2, "invalid signal: x"},
		{"FROM base\nRUN <<EOF\ntrue\n", 2, "unterminated heredoc"},
		{"FROM base AS 1x\n", 1, "invalid name for build stage"},
		{"FROM ${X}\n", 1, "should not be blank"},
		{"FROM UPPER/Case\n", 1, "must be lowercase"},
		{"FROM base@sha256:12\n", 1, "invalid reference format"},
		{"FROM --platform=a/b/c/d base\n", 1, "failed to parse platform"},
		{"FROM base\nRUN --network=foo true\n", 2, `invalid network mode "foo"`},
		{"FROM base\nCOPY --chmod=xyz a b\n", 2, "invalid syntax"},
		{"FROM base\nADD --checksum=sha256:1 a /c\n", 2, "checksum requires HTTP(S) or Git sources"},
		{"FROM base AS a\nCOPY --from=b x y\nFROM base AS b\nCOPY --from=a x y\n", 2, "circular dependency detected on stage: a"},
		{"FROM base\nWORKDIR ${a:?no}\n", 2, "a: no"},
		{"# escape=x\nFROM base\n", 1, "invalid escape token"},
		{"# check=error=true\nFROM base as x\n", 0, "lint violation found for rules: FromAsCasing"},
		{"# syntax=foo/bar:1\nFROM base\n", 1, `frontend "foo/bar:1" is not supported`},
	} {
		t.Run(c.dockerfile, func(t *testing.T) {
			_, err := Run(t.Context(), request(t, c.dockerfile, nil), &images{})
			require.ErrorContains(t, err, c.words)
			e, ok := fault.As(err)
			require.True(t, ok)
			if c.words == errNoImage.Error() {
				require.Equal(t, fault.Registry, e.Kind)
			} else {
				require.Equal(t, fault.User, e.Kind)
			}
			if c.line == 0 {
				require.Nil(t, e.Location)
				require.NotEmpty(t, e.Remedy+c.words)
				return
			}
			require.NotNil(t, e.Location)
			require.Equal(t, c.line, e.Location.Start)
			require.GreaterOrEqual(t, e.Location.End, c.line)
			require.Equal(t, "Dockerfile", e.Location.File)
			require.Equal(t, c.dockerfile, string(e.Location.Source))
		})
	}
}

func TestWrongSettingsAreExplained(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*Request)
		words string
	}{
		"target":  {func(r *Request) { r.Target = "nope" }, `target stage "nope" could not be found`},
		"missing": {func(r *Request) { r.Filename = "other" }, "failed to read dockerfile"},
		"context": {func(r *Request) { r.NamedContexts = map[string]string{"a b": "local:x"} }, "invalid reference format"},
		"layout":  {func(r *Request) { r.NamedContexts = map[string]string{"x": "oci-layout://d"} }, "not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			req := request(t, "FROM base\n", nil)
			c.set(&req)
			_, err := Run(t.Context(), req, &images{})
			require.ErrorContains(t, err, c.words)
			e, ok := fault.As(err)
			require.True(t, ok)
			require.NotEmpty(t, e.Remedy)
		})
	}
}
