// Command server is the internet of a lab: a coordination server, a DERP relay and a STUN server, in one process and in memory.
//
// The coordination server is Tailscale's own test server (tstest/integration/testcontrol) for all but the map stream, which is ours: like the
// production server, and unlike that one, it reports a peer as online while its map stream is open. What a test wants otherwise, it says on the
// admin socket, in HTTP:
//
//	GET  /nodes                                  what the server knows of each node, by host name
//	POST /nodes/NAME?online=true|false|auto      what it says of a node being connected; auto: what is so
//	POST /nodes/NAME?expires_in=DURATION         when its key expires; negative: it has
//	POST /nodes/NAME?tags=tag:a,tag:b            its tags
//	POST /nodes/NAME?routes=0.0.0.0/0,::/0       the routes that it may serve
//	POST /nodes/NAME?sharee=true                 that something is shared to it, and that it is no peer to be shown
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
	// keepAlive is how often an open map stream is written to; a client gives one up that is silent for two minutes.
	keepAlive = 50 * time.Second
	// offlineAfter is how long a node may be without a map stream until it is said to be offline: a client opens a new one now and then.
	offlineAfter = 2 * time.Second
)

// node is what is kept of a node beside what the test server keeps.
type node struct {
	streams  int       // open map streams
	lastSeen time.Time // when the last of them ended
	online   *bool     // what a test has said; nil: what is so
	expiry   time.Time // zero: never
	tags     []string
	routes   []netip.Prefix
	sharee   bool
}

func (n *node) isOnline() bool {
	if n.online != nil {
		return *n.online
	}
	return n.streams > 0 || time.Since(n.lastSeen) < offlineAfter
}

type tailnet struct {
	server *testcontrol.Server

	mu      sync.Mutex
	nodes   map[tailcfg.StableNodeID]*node
	changed chan struct{} // closed, and replaced, at each change
}

// change makes a change under the lock and tells all map streams.
func (t *tailnet) change(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f()
	close(t.changed)
	t.changed = make(chan struct{})
}

// kept returns what is kept of a node. The lock must be held.
func (t *tailnet) kept(id tailcfg.StableNodeID) *node {
	if t.nodes[id] == nil {
		t.nodes[id] = &node{}
	}
	return t.nodes[id]
}

// serve answers one map request, for as long as it is a stream.
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
	t.change(func() { t.kept(self.StableID).streams++ })
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

// update takes over what a node says of itself.
func (t *tailnet) update(self *tailcfg.Node, req *tailcfg.MapRequest) {
	if req.ReadOnly {
		return
	}
	t.change(func() {
		self = t.server.Node(req.NodeKey) // again, under the lock: nobody else writes it
		self.DiscoKey, self.Cap = req.DiscoKey, req.Version
		// The lab has no IPv6 between its nodes.
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

// leave notes that a map stream has ended; when the node does not come back, all are told.
func (t *tailnet) leave(id tailcfg.StableNodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.kept(id)
	n.streams--
	n.lastSeen = time.Now()
	if n.streams == 0 {
		time.AfterFunc(offlineAfter, func() { t.change(func() {}) })
	}
}

// response returns the whole netmap of a node.
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

// newest returns the node of each machine: one that was logged out and in again has a new one here. (The production server knows it again.)
func (t *tailnet) newest() map[key.MachinePublic]*tailcfg.Node {
	newest := map[key.MachinePublic]*tailcfg.Node{}
	for _, n := range t.server.AllNodes() {
		if old := newest[n.Machine]; old == nil || old.ID < n.ID {
			newest[n.Machine] = n
		}
	}
	return newest
}

// complete puts into a node what is kept of it. The lock must be held.
func (t *tailnet) complete(n *tailcfg.Node) {
	kept := t.kept(n.StableID)
	online := kept.isOnline()
	n.Online, n.LastSeen = &online, nil
	if !online {
		seen := kept.lastSeen.UTC()
		n.LastSeen = &seen
	}
	n.KeyExpiry, n.Tags = kept.expiry, kept.tags
	n.LegacyDERPString = fmt.Sprintf("%s:%d", tailcfg.DerpMagicIP, n.HomeDERP) // clients before v1.80 read this and not HomeDERP
	n.AllowedIPs = append(n.Addresses[:len(n.Addresses):len(n.Addresses)], kept.routes...)
	if kept.sharee {
		hostinfo := n.Hostinfo.AsStruct()
		hostinfo.ShareeNode = true
		n.Hostinfo = hostinfo.View()
	}
}

// named returns the node of a host name.
func (t *tailnet) named(name string) *tailcfg.Node {
	for _, n := range t.newest() {
		if n.Hostinfo.Hostname() == name {
			return n
		}
	}
	return nil
}

// show answers GET /nodes.
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
			"id": n.StableID, "key": n.Key, "dns_name": n.Name, "addresses": n.Addresses, "online": *n.Online, "expiry": n.KeyExpiry,
			"tags": n.Tags, "os": n.Hostinfo.OS(), "derp": region, "user": t.user(n), "endpoints": n.Endpoints,
		}
	}
	json.NewEncoder(w).Encode(nodes)
}

// user returns the login name of whom a node belongs to.
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

// set answers POST /nodes/NAME.
func (t *tailnet) set(w http.ResponseWriter, r *http.Request) {
	n := t.named(r.PathValue("name"))
	if n == nil {
		http.Error(w, "no such node", http.StatusNotFound)
		return
	}
	var wrong error
	note := func(err error) {
		if err != nil {
			wrong = err
		}
	}
	r.ParseForm()
	t.change(func() {
		kept := t.kept(n.StableID)
		for name, values := range r.Form {
			value := values[0]
			switch name {
			case "online":
				kept.online = nil
				if value != "auto" {
					online, err := strconv.ParseBool(value)
					note(err)
					kept.online = &online
					kept.lastSeen = time.Now()
				}
			case "expires_in":
				in, err := time.ParseDuration(value)
				note(err)
				kept.expiry = time.Now().Add(in).UTC().Truncate(time.Second)
			case "tags":
				kept.tags = strings.Split(value, ",")
			case "routes":
				kept.routes = nil
				for _, route := range strings.Split(value, ",") {
					prefix, err := netip.ParsePrefix(route)
					note(err)
					kept.routes = append(kept.routes, prefix)
				}
			case "sharee":
				sharee, err := strconv.ParseBool(value)
				note(err)
				kept.sharee = sharee
			default:
				note(fmt.Errorf("there is no %q to set", name))
			}
		}
	})
	if wrong != nil {
		http.Error(w, wrong.Error(), http.StatusBadRequest)
	}
}

func main() {
	ip := flag.String("ip", "127.0.0.1", "address that the nodes reach this at")
	certificate := flag.String("certificate", "certificate.pem", "where to write the certificate of the coordination server, which nodes have to trust")
	domain := flag.String("domain", "lab.ts.net", "MagicDNS suffix")
	region := flag.String("region", "fra", "code of the DERP region")
	admin := flag.String("admin", "admin.sock", "path of the admin socket")
	flag.Parse()

	t := &tailnet{nodes: map[tailcfg.StableNodeID]*node{}, changed: make(chan struct{})}
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
	// HTTPS as well: a client that has connected a moment ago, and does so again, wants it. HTTP/1 alone: the client upgrades the connection.
	serve(&http.Server{Addr: *ip + ":443", Handler: t.server, ErrorLog: log.New(os.Stderr, "https: ", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{newCertificate(*ip, *certificate)}}, TLSNextProto: noHTTP2})
	// The last to appear: who can connect to it finds all the others.
	socket, err := net.Listen("unix", *admin)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(socket, nil))
}

// noHTTP2 is for what is upgraded to something that is no HTTP: the connection to the coordination server, and that to DERP.
var noHTTP2 = map[string]func(*http.Server, *tls.Conn, http.Handler){}

// serve listens before it returns, and serves from then on, over TLS where there is a certificate.
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

// newCertificate returns a certificate that is its own authority, for a day, and writes it to a file.
func newCertificate(ip, path string) tls.Certificate {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(ip)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// startDERP starts a relay and a STUN server beside it, and returns the region that has both.
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
