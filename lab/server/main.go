// Command server runs the servers of the lab: a coordination server, a DERP relay and a STUN
// server, in one process. It keeps its state in memory.
//
// The coordination server is Tailscale's test server (tstest/integration/testcontrol) with
// its own map stream. Like the production server, and unlike the test server, it reports a
// peer as online while the peer's map stream is open. Tests change the record of a node with
// HTTP requests to the admin socket:
//
//	GET  /nodes                               records of all nodes, by host name
//	POST /nodes/NAME?online=true|false|auto   reported state; auto: whether a map stream is open
//	POST /nodes/NAME?expires_in=DURATION      key expiry, relative to now; negative: expired
//	POST /nodes/NAME?tags=tag:a,tag:b         tags
//	POST /nodes/NAME?routes=0.0.0.0/0,::/0    routes that the node may serve
//	POST /nodes/NAME?sharee=true              a sharee, which `tailscale status` hides
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stunserver"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

const (
	// keepAlive is the longest silence of a map stream. A client closes it after two minutes.
	keepAlive = 50 * time.Second
	// offlineAfter is the time from the end of the last map stream to offline. It is not zero
	// because a client sometimes replaces its stream.
	offlineAfter = 2 * time.Second
)

// record has the properties of a node that the test server does not keep.
type record struct {
	streams  int       // open map streams
	lastSeen time.Time // end of the last stream
	online   *bool     // set by a test; nil: auto
	expiry   time.Time // zero: never
	tags     []string
	routes   []netip.Prefix
	sharee   bool
}

func (r *record) isOnline() bool {
	if r.online != nil {
		return *r.online
	}
	return r.streams > 0 || time.Since(r.lastSeen) < offlineAfter
}

type tailnet struct {
	server *testcontrol.Server

	mu      sync.Mutex
	records map[tailcfg.StableNodeID]*record
	changed chan struct{} // closed and replaced at each change
}

// change runs f under the lock and wakes all map streams.
func (t *tailnet) change(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.changed)
	t.changed = make(chan struct{})
}

// record returns the record of a node. The caller must hold the lock.
func (t *tailnet) record(id tailcfg.StableNodeID) *record {
	if t.records[id] == nil {
		t.records[id] = &record{}
	}
	return t.records[id]
}

// serve handles one map request. If it is a stream, serve returns when the client closes it.
func (t *tailnet) serve(ctx context.Context, w testcontrol.MapStreamWriter, req *tailcfg.MapRequest) {
	self := t.server.Node(req.NodeKey)
	if self == nil {
		return
	}
	if !req.Stream {
		t.update(self, req)
		w.SendMapMessage(&tailcfg.MapResponse{})
		return
	}
	t.change(func() { t.record(self.StableID).streams++ })
	defer t.leave(self.StableID)
	for {
		t.mu.Lock()
		changed := t.changed
		t.mu.Unlock()
		if err := w.SendMapMessage(t.response(req)); err != nil {
			return
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-changed:
				waiting = false
			case <-time.After(keepAlive):
				if err := w.SendMapMessage(&tailcfg.MapResponse{KeepAlive: true}); err != nil {
					return
				}
			}
		}
	}
}

// update stores what a node reports about itself.
func (t *tailnet) update(self *tailcfg.Node, req *tailcfg.MapRequest) {
	if req.ReadOnly {
		return
	}
	t.change(func() {
		self = t.server.Node(req.NodeKey) // again: only holders of the lock change it
		self.DiscoKey, self.Cap = req.DiscoKey, req.Version
		// The network of the lab is IPv4 only.
		self.Endpoints = nil
		for _, e := range req.Endpoints {
			if e.Addr().Is4() {
				self.Endpoints = append(self.Endpoints, e)
			}
		}
		if req.Hostinfo != nil {
			self.Hostinfo = req.Hostinfo.View()
			if ni := req.Hostinfo.NetInfo; ni != nil && ni.PreferredDERP != 0 {
				self.HomeDERP = ni.PreferredDERP
			}
		}
		t.server.UpdateNode(self)
	})
}

// leave records the end of a map stream. It wakes the other streams when the node is offline.
func (t *tailnet) leave(id tailcfg.StableNodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.record(id)
	r.streams--
	r.lastSeen = time.Now()
	if r.streams == 0 {
		time.AfterFunc(offlineAfter, func() { t.change(func() {}) })
	}
}

// response returns the complete netmap of a node.
func (t *tailnet) response(req *tailcfg.MapRequest) *tailcfg.MapResponse {
	res, err := t.server.MapResponse(req)
	if err != nil || res == nil {
		log.Fatalf("no netmap for %v: %v", req.NodeKey, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	res.ControlTime = &now
	t.complete(res.Node)
	peers := res.Peers[:0]
	newest := t.newest()
	for _, p := range res.Peers {
		if newest[p.Machine].ID == p.ID && p.Machine != res.Node.Machine {
			t.complete(p)
			peers = append(peers, p)
		}
	}
	res.Peers = peers
	return res
}

// newest returns the newest node of each machine. A machine that logs out and in again becomes
// a new node here; the production server recognizes it.
func (t *tailnet) newest() map[key.MachinePublic]*tailcfg.Node {
	newest := map[key.MachinePublic]*tailcfg.Node{}
	for _, n := range t.server.AllNodes() {
		if old := newest[n.Machine]; old == nil || old.ID < n.ID {
			newest[n.Machine] = n
		}
	}
	return newest
}

// complete copies the record of a node into it. The caller must hold the lock.
func (t *tailnet) complete(n *tailcfg.Node) {
	r := t.record(n.StableID)
	online := r.isOnline()
	n.Online, n.LastSeen = &online, nil
	if !online {
		lastSeen := r.lastSeen.UTC()
		n.LastSeen = &lastSeen
	}
	n.KeyExpiry, n.Tags = r.expiry, r.tags
	// Clients before v1.80 do not read HomeDERP.
	n.LegacyDERPString = fmt.Sprintf("%s:%d", tailcfg.DerpMagicIP, n.HomeDERP)
	n.AllowedIPs = append(n.Addresses[:len(n.Addresses):len(n.Addresses)], r.routes...)
	if r.sharee {
		hostinfo := n.Hostinfo.AsStruct()
		hostinfo.ShareeNode = true
		n.Hostinfo = hostinfo.View()
	}
}

// named returns the node with a host name, or nil.
func (t *tailnet) named(name string) *tailcfg.Node {
	for _, n := range t.newest() {
		if n.Hostinfo.Hostname() == name {
			return n
		}
	}
	return nil
}

// show handles GET /nodes.
func (t *tailnet) show(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	nodes := map[string]any{}
	for _, n := range t.newest() {
		t.complete(n)
		region := ""
		if r := t.server.DERPMap.Regions[n.HomeDERP]; r != nil {
			region = r.RegionCode
		}
		nodes[n.Hostinfo.Hostname()] = map[string]any{
			"id": n.StableID, "key": n.Key, "dns_name": n.Name, "addresses": n.Addresses,
			"online": *n.Online, "expiry": n.KeyExpiry, "tags": n.Tags, "os": n.Hostinfo.OS(),
			"derp": region, "user": t.user(n), "endpoints": n.Endpoints,
		}
	}
	json.NewEncoder(w).Encode(nodes)
}

// user returns the login name of a node's owner.
func (t *tailnet) user(n *tailcfg.Node) string {
	res, err := t.server.MapResponse(&tailcfg.MapRequest{NodeKey: n.Key})
	if err == nil && res != nil {
		for _, u := range res.UserProfiles {
			if u.ID == n.User {
				return u.LoginName
			}
		}
	}
	return ""
}

// set handles POST /nodes/NAME.
func (t *tailnet) set(w http.ResponseWriter, req *http.Request) {
	n := t.named(req.PathValue("name"))
	if n == nil {
		http.Error(w, "no such node", http.StatusNotFound)
		return
	}
	var invalid error
	check := func(err error) {
		if err != nil {
			invalid = err
		}
	}
	req.ParseForm()
	t.change(func() {
		r := t.record(n.StableID)
		for name, values := range req.Form {
			value := values[0]
			switch name {
			case "online":
				r.online = nil
				if value != "auto" {
					online, err := strconv.ParseBool(value)
					check(err)
					r.online = &online
					r.lastSeen = time.Now()
				}
			case "expires_in":
				in, err := time.ParseDuration(value)
				check(err)
				r.expiry = time.Now().Add(in).UTC().Truncate(time.Second)
			case "tags":
				r.tags = strings.Split(value, ",")
			case "routes":
				r.routes = nil
				for _, route := range strings.Split(value, ",") {
					prefix, err := netip.ParsePrefix(route)
					check(err)
					r.routes = append(r.routes, prefix)
				}
			case "sharee":
				sharee, err := strconv.ParseBool(value)
				check(err)
				r.sharee = sharee
			default:
				check(fmt.Errorf("unknown value %q", name))
			}
		}
	})
	if invalid != nil {
		http.Error(w, invalid.Error(), http.StatusBadRequest)
	}
}

func main() {
	ip := flag.String("ip", "127.0.0.1", "address of the servers")
	certificate := flag.String("certificate", "certificate.pem", "output file for the certificate that nodes must trust")
	domain := flag.String("domain", "lab.ts.net", "MagicDNS suffix")
	region := flag.String("region", "fra", "code of the DERP region")
	admin := flag.String("admin", "admin.sock", "path of the admin socket")
	flag.Parse()

	t := &tailnet{records: map[tailcfg.StableNodeID]*record{}, changed: make(chan struct{})}
	t.server = &testcontrol.Server{
		DERPMap:          &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: startDERP(*ip, *region)}},
		ExplicitBaseURL:  "https://" + *ip,
		MagicDNSDomain:   *domain,
		DNSConfig:        &tailcfg.DNSConfig{Proxied: true, Domains: []string{*domain}},
		AllNodesSameUser: true,
		PeerRelayGrants:  true,
		Logf:             logger.Discard,
		AltMapStream:     t.serve,
	}
	http.HandleFunc("GET /nodes", t.show)
	http.HandleFunc("POST /nodes/{name}", t.set)

	serve(&http.Server{Addr: *ip + ":80", Handler: t.server})
	// A client that reconnects soon after its last connection uses HTTPS.
	serve(&http.Server{
		Addr: *ip + ":443", Handler: t.server, ErrorLog: log.New(os.Stderr, "https: ", 0),
		TLSConfig:    &tls.Config{Certificates: []tls.Certificate{newCertificate(*ip, *certificate)}},
		TLSNextProto: noHTTP2,
	})
	// The admin socket comes last: when it accepts connections, all servers do.
	socket, err := net.Listen("unix", *admin)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(socket, nil))
}

// noHTTP2 disables HTTP/2. Clients upgrade their connections to the coordination server and to
// DERP to another protocol, which only HTTP/1 can do.
var noHTTP2 = map[string]func(*http.Server, *tls.Conn, http.Handler){}

// serve listens on the address of a server, and serves in the background; over TLS if it is
// configured.
func serve(server *http.Server) {
	listener, err := net.Listen("tcp", server.Addr)
	if err != nil {
		log.Fatal(err)
	}
	if server.TLSConfig != nil {
		listener = tls.NewListener(listener, server.TLSConfig)
	}
	go func() { log.Fatal(server.Serve(listener)) }()
}

// newCertificate returns a self-signed certificate, valid for a day, and writes it to a file.
func newCertificate(ip, path string) tls.Certificate {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(ip)},
		IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		log.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(path, block, 0o644); err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// startDERP starts a DERP relay and a STUN server, and returns the region that consists of them.
func startDERP(ip, code string) *tailcfg.DERPRegion {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		log.Fatal(err)
	}
	relay := httptest.NewUnstartedServer(derpserver.Handler(derpserver.New(key.NewNode(), logger.Discard)))
	relay.Listener.Close()
	relay.Listener = listener
	relay.Config.ErrorLog = log.New(os.Stderr, "derp: ", 0)
	relay.Config.TLSNextProto = noHTTP2
	relay.StartTLS()

	stun := stunserver.New(context.Background())
	if err := stun.Listen(net.JoinHostPort(ip, "0")); err != nil {
		log.Fatal(err)
	}
	go stun.Serve()
	return &tailcfg.DERPRegion{RegionID: 1, RegionCode: code, RegionName: code, Nodes: []*tailcfg.DERPNode{{
		Name: code, RegionID: 1, HostName: ip, IPv4: ip, IPv6: "none", STUNTestIP: ip, InsecureForTests: true,
		DERPPort: listener.Addr().(*net.TCPAddr).Port, STUNPort: stun.LocalAddr().(*net.UDPAddr).Port,
	}}}
}
