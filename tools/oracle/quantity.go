package main

import (
	"fmt"
	"io"
	"math/rand"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

var edgeQuantities = []string{
	"", "0", "-0", "+0", "00", "0.0", "1", "+1", "-1", "01", "1.", ".5", "-.5", "+.5", "-", "+", ".", "Ki", "m", "e", "E",
	"1000m", "0.5", "1024Mi", "1.5Gi", "0.1Ki", "0.5Ki", "0.0001Ki", "1.00000000000000000001Ki", "0.1m", "0.1n", "0.1u",
	"1e3", "1E3", "1e-3", "1E-3", "1e+3", "12e4", "100e1", "1e", "1E", "5E", "5e0", "1e-10", "15e-10", "1e99", "1e-99",
	"1e4294967296", "1e2147483647", "0e9", "123456789012345678", "1234567890123456789", "999999999999999999999E",
	"1000000E", "1000E", "10E", "9Ei", "8Ei", "7Ei", "16Ei", "-9Ei", "9223372036854775807Ki", "9223372036854775807",
	"9223372036854775808", "-9223372036854775808", "1k", "1K", "1ki", "1KI", "1kI", "1mi", "1 Gi", " 1", "1 ", "1Gi ",
	"1G1", "1Gi1", "1m5", "1M5", "1n5", "1e5m", "1e5Ki", "0x10", "1_000", "1,5", "--1", "+-1", "1..2", "1.2.3", "1i", "iK",
	"abc", "１", "1٣", "NaN", "Inf", "1e1.5", "1e-", "1e+", "1E+5", "1E5i", "1000000", "1500", "1500k", "1500000", "10000m",
	"100000m", "1000000m", "1000000000n", "1000n", "1001n", "1024", "1024Ki", "1025Ki", "1032Ki", "2048Gi", "1048576Ki",
	"1023Ki", "1000Ki", "512Mi", "0.25Gi", "0.001Gi", "0.0000000001Gi", "3.7Ti", "100Pi", "9999999Gi", "12345678Ti",
	"Ei", "Pi", "Ti", "-Ei", "+Pi", ".Ei", "-.Pi", ".Ti", "e-9", "e-10", ".e-10", "-e-12", "0Ei", "00Pi", "0.Ei", ".0Ei", "n", ".n",
	"0.1", "0.01", "0.001", "0.0001", "0.0000000001", "1.0000000001", "0.123456789", "0.1234567891", "1e-9", "1.1e-9",
}

// quantities writes input, a tab, and the canonical text or "!" and the kind of error.
func quantities(out io.Writer) error {
	random := rand.New(rand.NewSource(1))
	inputs := append([]string{}, edgeQuantities...)
	suffixes := []string{"", "", "n", "u", "m", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Mi", "Gi", "Gi", "Ti", "Pi", "Ei",
		"e1", "e2", "e3", "E6", "e-3", "e-7", "e9", "e18", "e21", "e-12", "K", "mi", "x"}
	digits := func(n int) string {
		var text strings.Builder
		for range n {
			// Zeros and fives are where canonical forms differ.
			text.WriteByte("00012345678905000"[random.Intn(17)])
		}
		return text.String()
	}
	for range 4500 {
		text := []string{"", "", "", "", "", "", "-", "+"}[random.Intn(8)]
		length := 1 + random.Intn(6)
		if random.Intn(6) == 0 {
			length = random.Intn(24)
		}
		text += digits(length)
		if random.Intn(3) == 0 {
			text += "." + digits(random.Intn(12))
		}
		inputs = append(inputs, text+suffixes[random.Intn(len(suffixes))])
	}
	for value := int64(1); value < 1<<62; value *= 2 {
		inputs = append(inputs, fmt.Sprint(value), fmt.Sprintf("%dKi", value), fmt.Sprintf("%dm", value-1))
	}
	seen := map[string]bool{}
	for _, input := range inputs {
		if seen[input] {
			continue
		}
		seen[input] = true
		result := ""
		quantity, err := resource.ParseQuantity(input)
		switch err {
		case nil:
			result = quantity.String()
		case resource.ErrFormatWrong:
			result = "!format"
		case resource.ErrNumeric:
			result = "!number"
		case resource.ErrSuffix:
			result = "!suffix"
		default:
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\t%s\n", input, result); err != nil {
			return err
		}
	}
	return nil
}
