rm -rf in; mkdir in
echo 1 > in/f; ln in/f in/g; mkdir in/d; ln in/f in/d/h; ln -s f in/l; ln -s /etc in/abs; mkfifo in/p; mknod in/c c 1 5; touch -h -d '2011-01-01 00:00:00' in/f in/l in/abs in/p in/c in/d in; tar cf t.tar in; rm -r in
