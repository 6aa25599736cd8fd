// Command oracle records what the Go implementations do that isvc-core follows: quantities, templates and strategic
// merge. Its output is test data; see crates/isvc-core/tests/oracle/README.md.
//
// Everything random comes from a fixed seed, so two runs give the same files.
package main

import (
	"bufio"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: oracle quantity|template|merge|schema"))
	}
	out := bufio.NewWriter(os.Stdout)
	var err error
	switch os.Args[1] {
	case "quantity":
		err = quantities(out)
	case "template":
		err = templates(out)
	case "merge":
		err = merges(out)
	case "schema":
		err = schema(out)
	default:
		err = fmt.Errorf("unknown table %q", os.Args[1])
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "oracle:", err)
	os.Exit(1)
}
