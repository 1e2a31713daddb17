package tags

import "time"

// Project is what a CI knows of the repository; empty fields make no label.
type Project struct {
	Title, Description string
	// URL is the project's page, Source where its code is.
	URL, Source string
	// Licenses is an SPDX expression.
	Licenses string
	// Revision is the commit, when it is not that of the event.
	Revision string
}

// Labels are the OCI image labels (image-spec, annotations.md, "Pre-Defined
// Annotation Keys") of a project, an event and a version. The same keys serve
// as annotations.
func Labels(e Event, p Project, version string) map[string]string {
	const prefix = "org.opencontainers.image."
	revision := p.Revision
	if revision == "" {
		revision = e.SHA
	}
	labels := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			labels[prefix+key] = value
		}
	}
	set("title", p.Title)
	set("description", p.Description)
	set("url", p.URL)
	set("source", p.Source)
	set("version", version)
	set("revision", revision)
	set("licenses", p.Licenses)
	if !e.Now.IsZero() {
		set("created", e.Now.UTC().Format(time.RFC3339))
	}
	return labels
}
