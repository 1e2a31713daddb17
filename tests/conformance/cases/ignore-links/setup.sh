ln -s a.txt link; ln -s doc/x.md seen; touch -h -d '2011-01-01 00:00:00' link seen
