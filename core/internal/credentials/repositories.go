package credentials

import (
	"context"
	"errors"
	"strings"

	ecrsdk "github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/layerwright/layerwright/core/internal/fault"
)

// Repository is what is to hold of a repository in a registry that does not make
// repositories at the first push: Amazon's private ones.
type Repository struct {
	// Create makes it where it is missing; ScanOnPush has images scanned.
	Create, ScanOnPush bool
	// Policy says who may use it, Lifecycle what is removed when: JSON.
	Policy, Lifecycle string
}

// NeedsRepositories says whether a registry is one of these, by its host.
func NeedsRepositories(host string) bool {
	t, ok := ecrOf(Normal(host))
	return ok && t.service == "ecr"
}

// Prepare makes a repository what it is to be, with the keys for logins. done says
// what was changed. Doing it twice changes nothing more.
func Prepare(ctx context.Context, opts Options, at Place, want Repository) (done []string, err error) {
	t, ok := ecrOf(Normal(at.Host))
	if !ok {
		return nil, fault.New(fault.Usage, "%s makes repositories itself", at.Host)
	}
	if opts.Outside == nil {
		opts.Outside = func(f func() error) error { return f() }
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	e := &ecr{reach: newReach(opts)}
	if opts.Clouds.AWS != (AWS{}) {
		e.clouds = &opts.Clouds
	}
	a, keys, err := e.keys(ctx, t)
	if err == nil && keys == nil {
		err = errors.New("there are no AWS credentials")
	}
	if err != nil {
		return nil, fault.New(fault.Registry, "prepare the repository %s: %w", at, err).With("Give a key or a role: docs/credentials.md, \"Clouds by settings\".")
	}
	r := &repository{api: a.ecr(t, keys), name: at.Path, account: strings.SplitN(Normal(at.Host), ".", 2)[0]}
	for _, step := range []struct {
		wanted bool
		do     func(context.Context, Repository) (string, error)
		action string
	}{
		{want.Create, r.create, "CreateRepository"}, {want.ScanOnPush, r.scan, "PutImageScanningConfiguration"},
		{want.Policy != "", r.policy, "SetRepositoryPolicy"}, {want.Lifecycle != "", r.lifecycle, "PutLifecyclePolicy"},
	} {
		if !step.wanted {
			continue
		}
		said, err := step.do(ctx, want)
		if err != nil {
			return done, fault.New(fault.Registry, "prepare the repository %s: %s: %w", at, step.action, awsError(err)).
				With("Allow this identity ecr:" + step.action + ", or leave the setting out and have the repository made beforehand.")
		}
		if said != "" {
			done = append(done, said)
		}
	}
	return done, nil
}

// repository is one in ECR.
type repository struct {
	api           *ecrsdk.Client
	name, account string
}

func (r *repository) create(ctx context.Context, want Repository) (string, error) {
	_, err := r.api.CreateRepository(ctx, &ecrsdk.CreateRepositoryInput{RegistryId: &r.account, RepositoryName: &r.name,
		ImageScanningConfiguration: &ecrtypes.ImageScanningConfiguration{ScanOnPush: want.ScanOnPush}})
	var exists *ecrtypes.RepositoryAlreadyExistsException
	switch {
	case errors.As(err, &exists):
		return "", nil
	case err != nil:
		return "", err
	}
	return "was made", nil
}

func (r *repository) scan(ctx context.Context, want Repository) (string, error) {
	_, err := r.api.PutImageScanningConfiguration(ctx, &ecrsdk.PutImageScanningConfigurationInput{RegistryId: &r.account, RepositoryName: &r.name,
		ImageScanningConfiguration: &ecrtypes.ImageScanningConfiguration{ScanOnPush: want.ScanOnPush}})
	return "has images scanned when they are pushed", err
}

func (r *repository) policy(ctx context.Context, want Repository) (string, error) {
	_, err := r.api.SetRepositoryPolicy(ctx, &ecrsdk.SetRepositoryPolicyInput{RegistryId: &r.account, RepositoryName: &r.name, PolicyText: &want.Policy})
	return "has its policy", err
}

func (r *repository) lifecycle(ctx context.Context, want Repository) (string, error) {
	_, err := r.api.PutLifecyclePolicy(ctx, &ecrsdk.PutLifecyclePolicyInput{RegistryId: &r.account, RepositoryName: &r.name, LifecyclePolicyText: &want.Lifecycle})
	return "has its lifecycle policy", err
}
