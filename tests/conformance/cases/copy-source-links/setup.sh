ln -s doc dirlink; ln -s a.txt link1; ln -s src link2; ln -s /doc abs; touch -h -d '2011-01-01 00:00:00' dirlink link1 link2 abs
