tar cf e.tar -T /dev/null; : > empty; touch -d '2011-01-01 00:00:00' e.tar empty
