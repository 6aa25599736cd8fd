// Model-server answers like a model container: it serves the files that the storage-initializer left.
//
// It takes and ignores the arguments of real servers, and answers
//
//	GET  /, /healthz, /v2/health/ready   200 once the model directory is there
//	GET  /v1/models/NAME                 the model and the size of its files
//	POST /v1/models/NAME:predict         the number of instances
//
// With -fetch URL it instead makes one request, prints the answer and ends: a client in the same image.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const requestLimit = 1 << 20

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	flags := flag.NewFlagSet(os.Args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	directory := flags.String("model_dir", "/mnt/models", "where the model's files are")
	port := flags.String("http_port", "8080", "port to serve on")
	name := flags.String("model_name", "model", "name of the model")
	fetch := flags.String("fetch", "", "make one request to this URL instead of serving")
	// Real servers have more flags; those of no use here are left out.
	_ = flags.Parse(known(flags, os.Args[1:]))
	if *fetch != "" {
		if err := request(*fetch); err != nil {
			log.Fatal(err)
		}
		return
	}
	server := &http.Server{
		Addr:              ":" + *port,
		Handler:           handler(*directory, *name),
		ReadHeaderTimeout: 5 * time.Second,
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ended.Done()
		drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(drain)
	}()
	log.Printf("serving %s from %s on port %s", *name, *directory, *port)
	if err := server.ListenAndServe(); err != nil && !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

// known keeps the arguments of the form --flag=value that the flags define.
func known(flags *flag.FlagSet, arguments []string) []string {
	var kept []string
	for _, argument := range arguments {
		name, _, found := strings.Cut(strings.TrimLeft(argument, "-"), "=")
		if found && flags.Lookup(name) != nil {
			kept = append(kept, argument)
		}
	}
	return kept
}

func handler(directory, name string) http.Handler {
	mux := http.NewServeMux()
	ready := func(response http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(directory); err != nil {
			http.Error(response, "the model is not there", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(response, "ok")
	}
	mux.HandleFunc("GET /{$}", ready)
	mux.HandleFunc("GET /healthz", ready)
	mux.HandleFunc("GET /v2/health/ready", ready)
	mux.HandleFunc("GET /v1/models/{model}", func(response http.ResponseWriter, request *http.Request) {
		answer(response, map[string]any{"name": request.PathValue("model"), "ready": "True", "bytes": size(directory)})
	})
	mux.HandleFunc("POST /v1/models/{call}", func(response http.ResponseWriter, request *http.Request) {
		var body struct {
			Instances []json.RawMessage `json:"instances"`
		}
		if err := json.NewDecoder(io.LimitReader(request.Body, requestLimit)).Decode(&body); err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
			return
		}
		answer(response, map[string]any{"model": name, "predictions": len(body.Instances), "bytes": size(directory)})
	})
	return mux
}

func answer(response http.ResponseWriter, value any) {
	response.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(response).Encode(value)
}

// size is the sum of the sizes of all files below the directory.
func size(directory string) int64 {
	var sum int64
	_ = filepath.Walk(directory, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

func request(url string) error {
	client := &http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, requestLimit))
	if err != nil {
		return err
	}
	fmt.Printf("%s %s\n", response.Status, body)
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, response.Status)
	}
	return nil
}
