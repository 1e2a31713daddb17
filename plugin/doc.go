// Package plugin is what all CI adapters share: the settings of a build in
// neutral words, their one validation, what is made of them (tags, labels,
// destinations, the cache repository, credentials, outputs: core.Request) and
// the run. It knows no CI: an adapter hands over values under neutral names,
// what it knows of the git event, and how its users spell a setting. It reads no
// environment variable but those that it is given, and prints only through
// plugin/display.
package plugin
