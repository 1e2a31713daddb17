package syntax

// KanikoFlag is a flag of Kaniko, or of its maintained fork, that has nothing to do
// here.
type KanikoFlag struct {
	Name string
	// Value is what Kaniko's flag takes, empty for a switch.
	Value string
	// Instead is what happens, for the log and the help.
	Instead string
}

// KanikoFlags are accepted, so that a pipeline goes on to work, and said to have no
// effect when they are given. docs/kaniko.md has all of Kaniko's flags.
func KanikoFlags() []KanikoFlag {
	return []KanikoFlag{
		{"snapshot-mode", "MODE", "change times find changes, contents decide"},
		{"use-new-run", "", "change times find changes, contents decide"},
		{"compressed-caching", "", "layers are never kept in memory"},
		{"cleanup", "", "the job's own files are always put back"},
		{"pre-cleanup", "", "steps never see the job's own files"},
		{"preserve-context", "", "the job's own files are always put back"},
		{"materialize", "", "the job's files are put back; see --rootfs-dir"},
		{"ignore-var-run", "", "what is mounted is never part of an image"},
		{"image-fs-extract-retry", "N", "layers are checked; see --image-download-retry"},
		{"kaniko-dir", "DIR", "--store says where file trees are"},
		{"force-build-metadata", "", "instructions without files run nothing"},
		{"skip-unused-stages", "", "stages that nothing needs are never built"},
		{"log-timestamp", "", "lines have the seconds since their step began"},
	}
}
