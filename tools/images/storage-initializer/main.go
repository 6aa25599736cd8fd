// Storage-initializer stands for KServe's: called with a source and a directory, it leaves a model there.
//
// There is no object store beside the cluster, so it fetches nothing. It writes a file with the source's name and one with
// the names of the credentials it was given, never their values, so that a test can see that they arrived.
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

func main() {
	if len(os.Args) < 3 || len(os.Args)%2 == 0 {
		log.Fatalf("usage: %s SOURCE DIRECTORY [SOURCE DIRECTORY ...]", os.Args[0])
	}
	for index := 1; index < len(os.Args); index += 2 {
		if err := leave(os.Args[index], os.Args[index+1]); err != nil {
			log.Fatal(err)
		}
	}
}

func leave(source, directory string) error {
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "model.txt"), []byte(source+"\n"), 0o644); err != nil {
		return err
	}
	var names []string
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if value != "" && (strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "HF_") || strings.HasPrefix(name, "AZ")) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	log.Printf("left %s in %s; credentials: %s", source, directory, strings.Join(names, " "))
	return os.WriteFile(filepath.Join(directory, "credentials.txt"), []byte(fmt.Sprintln(strings.Join(names, "\n"))), 0o644)
}
