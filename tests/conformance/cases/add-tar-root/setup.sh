rm -rf in; mkdir in
mkdir in/etc in/tmp; echo mine > in/etc/motd; chmod 0751 in in/tmp; touch -d '2011-01-01 00:00:00' in/etc/motd in/etc in/tmp in; tar cf t.tar -C in .; rm -r in
