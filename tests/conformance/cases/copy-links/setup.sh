ln -s dir link-dir
ln -s a.txt link-file
ln -s nowhere dangling
ln -s /etc/passwd absolute
