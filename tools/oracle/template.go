package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	htmltemplate "html/template"
	"io"
	"strings"
	texttemplate "text/template"
)

// metadata stands for the struct that templates see: fixed fields, maps of strings in some of them.
type metadata struct {
	Name          string
	Namespace     string
	IngressDomain string
	Generation    int64
	Finalizers    []string
	Labels        map[string]string
	Annotations   map[string]string
	Nothing       map[string]string
}

var context = metadata{
	Name:          "m",
	Namespace:     "team-a",
	IngressDomain: "models.test",
	Generation:    7,
	Finalizers:    []string{"one", "two"},
	Labels:        map[string]string{"team": "blue", "a.b/c": "slash", "empty": "", "modelClass": "x.Y"},
	Annotations: map[string]string{
		"note": `a<b>&'c'+d`, "quoted": `say "hi"`, "backslash": `C:\new\u0041`, "newline": "two\nlines", "tab": "a\tb",
		"unicode": "grün 模型 \u2028", "nul": "a\x00b", "control": "a\x01b\x7f", "space": "a b&c=d/e",
	},
}

// Templates whose rendering is recorded in both flavours.
var templateTexts = []string{
	"", "plain", "{{ .Name }}", "{{.Namespace}}", "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}", "{{ .Generation }}",
	"{{ .Labels.team }}", "{{ .Labels.none }}", "x{{ .Labels.none }}y", "{{ .Labels.empty }}", "{{ .Labels.none.deeper }}",
	"{{ .Nothing.key }}", "{{ .Nothing }}", "{{ .Labels }}", "{{ .Finalizers }}", "{{ .None }}", "{{ .None.x }}", "{{ .Name.x }}",
	"{{ .Labels.team.x }}", "{{ $.Name }}", "{{ $.Labels.team }}", "{{ (.Labels).team }}", "{{ (.Name) }}",
	`{{ index .Labels "a.b/c" }}`, "{{ index .Labels `a.b/c` }}", `{{ index .Labels "none" }}`, `{{ index .Nothing "x" }}`,
	`{{ index .Finalizers 1 }}`, `{{ index .Finalizers 2 }}`, `{{ index .Labels }}`, `{{ index }}`, `{{ index .Labels.none "x" }}`,
	`{{ index .Name "x" }}`, `{{ .Labels | len }}`, `{{ len .Name }}`, `{{ len .Nothing }}`, `{{ len .Labels.none }}`, `{{ len 3 }}`,
	"{{ .Annotations.note }}", "{{ .Annotations.quoted }}", "{{ .Annotations.backslash }}", "{{ .Annotations.newline }}",
	"{{ .Annotations.tab }}", "{{ .Annotations.unicode }}", "{{ .Annotations.nul }}", "{{ .Annotations.control }}",
	"{{ .Annotations.note | html }}", "{{ html .Annotations.note }}", "{{ .Annotations.space | urlquery }}",
	"{{ urlquery .Annotations.note }}", "{{ html .Labels.none }}", "{{ .Labels.none | html }}", "{{ .Labels.none | urlquery }}",
	"{{ .Annotations.note | html | printf \"%s\" }}", "{{ .Annotations.note | urlquery | html }}", "{{ html .Name .Namespace }}", "{{ (html .Labels.none) }}",
	"{{ urlquery .Labels.none }}", "{{ html .Labels.none .Name }}", "{{ html .Labels.none 3 }}", "{{ html }}", "{{ .Name | | print }}", "{{ (.Name | ) }}",
	"{{ .Name | html .Labels.none }}", "{{ html .Labels.none | print }}", "{{ html .Labels }}", "{{ html .Nothing }}",
	"{{ html .Generation .Generation }}", `{{ printf "%s-%s" .Name .Namespace }}`, `{{ .Name | printf "%s-%s" "a" }}`,
	`{{ printf "%v/%d" .Generation .Generation }}`, `{{ printf "%q" .Annotations.quoted }}`, `{{ printf "100%%" }}`,
	`{{ printf "%s" .Labels.none }}`, `{{ printf "%v" .Labels.none }}`, `{{ printf "%v" .Labels }}`, `{{ printf "plain" }}`,
	"{{ print .Name .Namespace }}", "{{ print .Generation .Generation }}", "{{ print .Name .Generation .Generation }}",
	"{{ print .Labels.none }}", "{{ print }}", "{{ print 1 2 \"x\" 3 4 }}", "{{ printf }}", "{{ printf 3 }}",
	`{{ "literal" }}`, "{{ `raw` }}", "{{ `<raw>` }}", `{{ "<&>" }}`, `{{ "a\tb\n\"\\\x41é\U0001F600" }}`, `{{ "bad\q" }}`,
	"{{ 3 }}", "{{ -3 }}", "{{ +3 }}", "{{ 0 }}", "{{ true }}", "{{ false }}", "{{ nil }}",
	"a  {{- .Name -}}  b", "a  {{- .Name }}  b", "a  {{ .Name -}}  b", "a {{- /* comment */ -}} b", "a {{/* comment */}} b",
	"a{{ /* late */ }}b", "{{- \"x\" -}}", "{{-3}}", "{{- 3}}", "{{ 3 -}}", "\n\t{{- .Name -}}\r\n x", "{{/* unclosed", "{{/* a */ }}",
	"{{if .Name}}yes{{end}}", "{{if .Labels.none}}yes{{else}}no{{end}}", "{{if .Labels.empty}}yes{{else}}no{{end}}",
	"{{if .Labels}}yes{{end}}", "{{if .Nothing}}yes{{else}}no{{end}}", "{{if 0}}yes{{else}}no{{end}}", "{{if .Generation}}yes{{end}}",
	`{{if eq .Labels.team "blue"}}b{{else if eq .Labels.team "red"}}r{{else}}other{{end}}`,
	`{{if eq .Labels.team "green"}}g{{else if eq .Labels.team "blue"}}b{{else}}other{{end}}`,
	`{{if eq .Name "a" "m"}}one of{{end}}`, `{{if ne .Name "a"}}differs{{end}}`, `{{if eq .Labels.none "x"}}yes{{else}}no{{end}}`,
	`{{if eq .Labels.none .Labels.gone}}yes{{else}}no{{end}}`, `{{if eq .Name 3}}yes{{end}}`, `{{if eq .Labels .Labels}}yes{{end}}`,
	`{{if eq .Generation 7}}seven{{end}}`, `{{if eq .Name}}yes{{end}}`, `{{if ne .Name "a" "b"}}yes{{end}}`,
	"{{if and .Name .Labels.none}}yes{{else}}no{{end}}", "{{if or .Labels.none .Name}}yes{{else}}no{{end}}",
	"{{ and .Name .Namespace }}", "{{ or .Labels.empty .Name }}", "{{ or .Labels.empty .Labels.none }}", "{{ or .Name .None }}",
	"{{ and .Labels.empty .None }}", "{{ not .Name }}", "{{ not .Labels.none }}", "{{ not }}", "{{ and }}",
	"{{with .Labels}}{{.team}}{{end}}", "{{with .Labels.none}}x{{else}}none{{end}}", "{{with .Labels}}{{$.Name}}{{.none}}{{end}}",
	"{{with .Name}}{{.}}{{end}}", "{{with .Labels.none}}a{{else with .Labels.team}}{{.}}{{else}}c{{end}}",
	"{{if .Name}}{{if .Labels.none}}a{{else}}b{{end}}c{{end}}", "{{if .Name}}open", "{{end}}", "{{else}}", "{{if}}x{{end}}",
	"{{if .Name}}a{{else}}b{{else}}c{{end}}", "{{if .Name}}a{{else with .Name}}b{{end}}", "{{if .Name}}a{{else x}}b{{end}}",
	"{{if .Name}}a{{end x}}", "{{ }}", "{{}}", "{{", "{{ .Name", "}}", "a}}b", "{ {.Name} }", "{{{.Name}}}", "{{ {{ .Name }} }}",
	"{{ .Name }", "{{ .Name | }}", "{{ | .Name }}", "{{ .Name .Namespace }}", "{{ .Name | .Namespace }}", "{{ .Name | \"x\" }}",
	"{{ unknown .Name }}", "{{ .Name.}}", "{{ .Labels.a-b }}", "{{ .Labels.a.b }}", "{{ .Name\"x\" }}", "{{ (.Name }}", "{{ .Name) }}",
	"{{ \"x\"\"y\" }}", "{{ \"unterminated }}", "{{ `unterminated }}", "{{ \"line\nbreak\" }}", "{{ .Name\n}}", "{{\n.Name }}",
	"{{ ( .Name ) }}", "{{ ((.Labels)).team }}", `{{ (index .Labels "team") | printf "%s!" }}`, "{{ .Name | len | print }}",
	"{{ . Name }}", "{{ ..Name }}", "{{ true.x }}", "{{ 3.x }}", "{{ \"a\".x }}", "{{ print.x }}", "grün {{ .Name }} 模型",
	"{{ .Generation.x }}", "{{ index .Labels 3 }}", "{{ index .Finalizers \"x\" }}", "{{ .Finalizers.x }}", "{{ printf \"%s\" (print .Name) }}",
	"{{ print nil }}", "{{ eq nil .Labels.none }}", "{{ html \"<\" }}+{{ \"+\" }}", "{{ \"+\" | html }}", "{{ html \"a\" | print }}",
}

// What is known to be unsupported: the table says only whether Go accepts it.
var unsupportedTexts = []string{
	"{{range .Finalizers}}{{.}}{{end}}", "{{$x := .Name}}{{$x}}", `{{define "x"}}{{end}}`, `{{template "x"}}`, `{{block "x" .}}{{end}}`,
	"{{break}}", "{{ call .Name }}", "{{ js .Name }}", "{{ println .Name }}", "{{ slice .Name 1 }}", "{{ lt 1 2 }}", "{{ 1.5 }}", "{{ 'x' }}",
	"{{ 0x10 }}", "{{ 010 }}", `{{ printf "%5s" .Name }}`, `{{ printf "%s" .Generation }}`, `{{ printf "%s" }}`, `{{ printf "x" .Name }}`,
	`{{ printf "%x" .Name }}`, `{{ printf "%d" .Name }}`, `{{ "\101" }}`, "{{ .Labels.team | printf }}", "{{ print . }}", "{{ html . }}",
	"{{ . }}", "{{ $ }}", "{{ .1 }}",
}

// Strings that are placed in a container which is then marshalled, rendered and read back.
var documentTexts = []string{
	"--a={{.Annotations.note}}", "--a={{.Annotations.quoted}}", "--a={{.Annotations.backslash}}", "--a={{.Annotations.newline}}",
	"--a={{.Annotations.tab}}", "--a={{.Annotations.unicode}}", "--a={{.Annotations.nul}}", "--a={{.Annotations.control}}",
	"--a={{ index .Labels \"a.b/c\" }}", "--a={{ index .Labels `a.b/c` }}", "<b>&{{.Name}}'\"\\", "a\n{{- .Name }}", "a {{- .Name -}} b",
	"{{ .Nope }}", "{{ .Labels.none }}", "{{if .Labels.team}}<x>{{end}}", "{{ .Name", "}}", "{{`\n`}}", "\u2028{{.Name}}\u2029", "{{ `<` }}",
	"{{ `>` }}", "{{ `&` }}", "{{ .Annotations.note | html }}", "{{/* c */}}x", "{{ `\\n` }}", "{{with .Labels}}{{.team}}{{end}}",
}

type record struct {
	Flavour  string  `json:"flavour"`
	Template string  `json:"template"`
	Output   *string `json:"output,omitempty"`
	// Error is Go's message; only its presence is compared.
	Error       string `json:"error,omitempty"`
	Unsupported bool   `json:"unsupported,omitempty"`
}

func renderText(text string) (string, error) {
	parsed, err := texttemplate.New("t").Parse(text)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, context)
	return out.String(), err
}

func renderHTML(text string) (string, error) {
	parsed, err := htmltemplate.New("t").Parse(text)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, context)
	return out.String(), err
}

// document is what stands around a text when a container is rendered.
type document struct {
	Args  []string `json:"args"`
	Image string   `json:"image"`
}

func renderDocument(text string) (string, error) {
	marshalled, err := json.Marshal(document{Args: []string{"--first", text}, Image: "reg.test/a:1"})
	if err != nil {
		return "", err
	}
	rendered, err := renderHTML(string(marshalled))
	if err != nil {
		return "", err
	}
	var read document
	if err := json.Unmarshal([]byte(rendered), &read); err != nil {
		return "", err
	}
	return strings.Join(read.Args[1:], ","), nil
}

// templates writes the context and then one JSON object a line.
func templates(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(context); err != nil {
		return err
	}
	write := func(flavour, text string, unsupported bool, render func(string) (string, error)) error {
		row := record{Flavour: flavour, Template: text, Unsupported: unsupported}
		if output, err := render(text); err != nil {
			row.Error = err.Error()
		} else {
			row.Output = &output
		}
		return encoder.Encode(row)
	}
	for _, text := range templateTexts {
		if err := write("text", text, false, renderText); err != nil {
			return err
		}
		if err := write("html", text, false, renderHTML); err != nil {
			return err
		}
	}
	for _, text := range unsupportedTexts {
		if err := write("text", text, true, renderText); err != nil {
			return err
		}
	}
	for _, text := range documentTexts {
		if err := write("document", text, false, renderDocument); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	return nil
}
