package main

import "net/http"

func main() {
	go http.ListenAndServe(":9090", http.NotFoundHandler())
	http.ListenAndServe(":8080", http.NotFoundHandler())
}
