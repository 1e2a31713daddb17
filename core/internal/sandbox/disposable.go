package sandbox

// Disposable says whether the root looks like a container's, meant to be thrown
// away.
func Disposable() bool { return checkDisposable() == nil }
