package credentials

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"
)

// fetch asks for an object and gives what it holds.
func (c *cloud) fetch(raw string, env map[string]string) (string, error) {
	c.t.Helper()
	o, err := NewObject(c.t.Context(), raw, Options{Environment: env, Transport: c, Direct: c})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, o.URL, nil)
	require.NoError(c.t, err)
	resp, err := (&http.Client{Transport: o.Transport(c)}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(c.t, err)
	return string(data), nil
}

// signedS3 checks a signature by making it again from the request that arrived.
func signedS3(t *testing.T, host, secret, region string) func(r *http.Request, body string) (int, string) {
	return func(r *http.Request, _ string) (int, string) {
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		require.NoError(t, err)
		again, err := http.NewRequestWithContext(context.Background(), r.Method, "https://"+host+r.URL.RequestURI(), nil)
		require.NoError(t, err)
		sum := r.Header.Get("X-Amz-Content-Sha256")
		again.Header.Set("X-Amz-Content-Sha256", sum)
		require.NoError(t, v4.NewSigner().SignHTTP(context.Background(), awssdk.Credentials{AccessKeyID: "id", SecretAccessKey: secret}, again, sum, "s3", region, at,
			func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }))
		if again.Header.Get("Authorization") != r.Header.Get("Authorization") {
			return http.StatusForbidden, "<Code>SignatureDoesNotMatch</Code>"
		}
		return http.StatusOK, "the archive"
	}
}

func TestObjectsOfS3(t *testing.T) {
	keys := map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_EC2_METADATA_DISABLED": "true"}
	with := func(kv ...string) map[string]string {
		env := map[string]string{}
		for k, v := range keys {
			env[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			env[kv[i]] = kv[i+1]
		}
		return env
	}
	c := newCloud(t)
	c.on("GET b.s3.eu-west-1.amazonaws.com/dir/a b.tgz", signedS3(t, "b.s3.eu-west-1.amazonaws.com", "key", "eu-west-1"))
	c.on("GET minio.test:9000/b/a.tgz", signedS3(t, "minio.test:9000", "key", "us-east-1"))
	c.on("GET s3.us-east-1.amazonaws.com/b.with.dots/a.tgz", signedS3(t, "s3.us-east-1.amazonaws.com", "key", "us-east-1"))
	for raw, env := range map[string]map[string]string{
		"s3://b/dir/a b.tgz":     with("AWS_REGION", "eu-west-1"),
		"s3://b/a.tgz":           with("S3_ENDPOINT", "https://minio.test:9000", "S3_FORCE_PATH_STYLE", "true"),
		"s3://b.with.dots/a.tgz": with(),
	} {
		got, err := c.fetch(raw, env)
		require.NoError(t, err, raw)
		require.Equal(t, "the archive", got)
	}
	_, err := c.fetch("s3://b/a.tgz", with("S3_ENDPOINT", "https://minio.test:9000", "S3_FORCE_PATH_STYLE", "true", "AWS_SECRET_ACCESS_KEY", "wrong-planted"))
	require.ErrorContains(t, err, "s3://b/a.tgz: 403 Forbidden: these keys may not read it")
	require.NotContains(t, err.Error(), "wrong-planted")
	_, err = c.fetch("s3://b/none", with("S3_ENDPOINT", "https://minio.test:9000", "S3_FORCE_PATH_STYLE", "true"))
	require.ErrorContains(t, err, "404 Not Found: there is no such bucket or object")
	c.on("GET public.s3.us-east-1.amazonaws.com/x", func(r *http.Request, _ string) (int, string) {
		require.Empty(t, r.Header.Get("Authorization"))
		return http.StatusOK, "public"
	})
	got, err := c.fetch("s3://public/x", map[string]string{"AWS_EC2_METADATA_DISABLED": "true"})
	require.NoError(t, err)
	require.Equal(t, "public", got)
	_, err = NewObject(t.Context(), "s3://bucket/", Options{})
	require.ErrorContains(t, err, "write s3://BUCKET/ARCHIVE")
}

func TestObjectsOfGoogle(t *testing.T) {
	c := newCloud(t)
	c.says("GET metadata.test/computeMetadata/v1/instance/service-accounts/default/token", `{"access_token":"planted-token","expires_in":3600}`)
	c.on("GET storage.googleapis.com/b/dir/a.tgz", func(r *http.Request, _ string) (int, string) {
		if r.Header.Get("Authorization") != "Bearer planted-token" {
			return http.StatusUnauthorized, ""
		}
		return http.StatusOK, "the archive"
	})
	got, err := c.fetch("gs://b/dir/a.tgz", map[string]string{"GCE_METADATA_HOST": "metadata.test", "HOME": "/none"})
	require.NoError(t, err)
	require.Equal(t, "the archive", got)
	_, err = c.fetch("gs://b/dir/a.tgz", map[string]string{"GCE_METADATA_HOST": "nowhere.test", "HOME": "/none"})
	require.ErrorContains(t, err, "it is not public, and no keys were found")
}

// TestObjectsOfAzure: the text that is signed is as Microsoft's page "Authorize with
// Shared Key" has it.
func TestObjectsOfAzure(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte("planted account key"))
	const host = "account1.blob.core.windows.net"
	c := newCloud(t)
	c.on("GET "+host+"/box/a.tgz", func(r *http.Request, _ string) (int, string) {
		if r.URL.Query().Get("sig") == "signature" {
			require.Empty(t, r.Header.Get("Authorization"))
			return http.StatusOK, "by signature"
		}
		want := "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:" + r.Header.Get("X-Ms-Date") + "\nx-ms-version:2021-08-06\n/account1/box/a.tgz"
		clean := &http.Request{Method: r.Method, URL: r.URL, Header: http.Header{"X-Ms-Date": r.Header["X-Ms-Date"], "X-Ms-Version": r.Header["X-Ms-Version"]}}
		require.Equal(t, want, azureText(clean, "account1"))
		mac := hmac.New(sha256.New, []byte("planted account key"))
		_, _ = mac.Write([]byte(want))
		if r.Header.Get("Authorization") != "SharedKey account1:"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			return http.StatusForbidden, ""
		}
		return http.StatusOK, "by key"
	})
	got, err := c.fetch("https://"+host+"/box/a.tgz", map[string]string{"AZURE_STORAGE_ACCESS_KEY": key})
	require.NoError(t, err)
	require.Equal(t, "by key", got)
	got, err = c.fetch("https://"+host+"/box/a.tgz?sig=signature", map[string]string{"AZURE_STORAGE_ACCESS_KEY": key})
	require.NoError(t, err)
	require.Equal(t, "by signature", got)
	_, err = c.fetch("https://"+host+"/box/none?sv=planted-signature", nil)
	require.ErrorContains(t, err, "404")
	var refused *ObjectError
	require.ErrorAs(t, err, &refused)
	require.NotContains(t, refused.Error(), "planted-signature")
	_, err = NewObject(t.Context(), "https://"+host+"/box/a", Options{Environment: map[string]string{"AZURE_STORAGE_ACCESS_KEY": "not base64!"}})
	require.ErrorContains(t, err, "is not base64")
	require.False(t, IsObject("https://example.com/a.tgz"))
}
