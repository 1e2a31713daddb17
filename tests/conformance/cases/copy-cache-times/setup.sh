touch -d '2001-01-01 01:01:01.123456789' dir/one
touch -d '2002-02-02' dir/sub
