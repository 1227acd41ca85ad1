module localapi

go 1.24
