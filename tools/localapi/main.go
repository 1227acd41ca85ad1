// Command localapi is a LocalAPI that costs nearly nothing: the yardstick of `make bench`.
//
// Usage: localapi SOCKET STATUS USERMETRICS
//
// It serves the status from a file, chunked and over kept connections like tailscaled, and answers
// each ping at once, directly.
package main

import (
	"log"
	"net"
	"net/http"
	"os"
)

const pong = `{"IP":"100.64.0.1","NodeIP":"100.64.0.1","NodeName":"peer","Err":"",` +
	`"LatencySeconds":0.012,"Endpoint":"192.0.2.7:41641","PeerRelay":"","DERPRegionID":0,"DERPRegionCode":""}`

func main() {
	socket := os.Args[1]
	status, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	usermetrics, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/localapi/v0/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for rest := status; len(rest) > 0; {
			n := min(len(rest), 2048)
			w.Write(rest[:n])
			rest = rest[n:]
		}
	})
	mux.HandleFunc("/localapi/v0/usermetrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Write(usermetrics)
	})
	mux.HandleFunc("/localapi/v0/ping", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(pong))
	})
	listener, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, mux))
}
