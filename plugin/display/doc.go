// Package display owns how a build's progress, its end and its errors look:
// a live view for terminals, plain lines for CI logs, and JSON for programs.
// It turns core's events into text on a writer that it is given. It decides
// nothing about the build, opens nothing, and reads no environment variable.
//
// # The JSON format
//
// One object a line. Every object has "type" and "time" (RFC 3339, UTC). New
// fields and types may be added; those below stay.
//
//	plan      steps: [step…]: what may run, in the order of the graph
//	started   step
//	log       step, stream (1 standard output, 2 standard error), text (one line)
//	done      step, status (done, cached, canceled, error), seconds, error
//	transfer  id, name, current, total (bytes; 0: not known), finished;
//	          at most one a second for each id, and the last one
//	notice    level (info, warning), rule, text, url, file, line
//	result    digest, image_id, destinations, media_type, size, files, seconds,
//	          cache: [{name, hit, why, details}…], where there is a cache
//	error     kind (usage, user, step, registry, environment, internal,
//	          canceled),
//	          message, file, line, exit_code, output, remedy, seconds
//
// A step is an object of id, number, name, and, where it belongs to an
// instruction, file and line. The last object is either a result or an error.
package display
