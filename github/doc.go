// Package github is the adapter for GitHub Actions: inputs and the event become
// plugin.Values and plugin.Facts, the build's end becomes outputs, a job summary
// and annotations. It decides nothing about the build, and reads only what
// plugin.Job hands it.
package github
