package frontend

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBaseImagesOfADockerfile(t *testing.T) {
	text := []byte(`ARG TAG=1
ARG REG=r.example
FROM ${REG}/go:${TAG} AS build
FROM build AS test
FROM scratch
FROM debian:12
COPY --from=build /a /a
COPY --from=0 /a /b
COPY --from=tools:3 /c /c
FROM debian:12 AS again
`)
	got, err := BaseImages("Dockerfile", text, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"r.example/go:1", "debian:12", "tools:3"}, got)
	got, err = BaseImages("Dockerfile", text, map[string]string{"TAG": "2"})
	require.NoError(t, err)
	require.Equal(t, "r.example/go:2", got[0])
	for _, bad := range []string{"FORM x\n", "FROM ${x\n", "RUN x\n"} {
		_, err := BaseImages("Dockerfile", []byte(bad), nil)
		require.Error(t, err, bad)
	}
}
