package main

import (
	"fmt"
	"io"
	"reflect"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// schema writes, for Container and PodSpec and everything inside them, one line per type and field:
//
//	struct Container
//	env list=EnvVar merge=name zero
//
// A field's form is scalar, struct=T, list, list=T or map; map=T. "merge=K" marks a list merged by key K ("merge" alone:
// of scalars), "zero" one whose zero value the API does not write. Types are in the order of first mention.
func schema(out io.Writer) error {
	names := map[reflect.Type]string{}
	var queue []reflect.Type
	mention := func(t reflect.Type) string {
		if _, known := names[t]; !known {
			names[t] = t.Name()
			queue = append(queue, t)
		}
		return names[t]
	}
	mention(reflect.TypeFor[corev1.Container]())
	mention(reflect.TypeFor[corev1.PodSpec]())
	used := map[string]bool{}
	for len(queue) > 0 {
		t := queue[0]
		queue = queue[1:]
		if used[t.Name()] {
			return fmt.Errorf("two types are called %s", t.Name())
		}
		used[t.Name()] = true
		fmt.Fprintf(out, "struct %s\n", t.Name())
		var lines []string
		for _, field := range fields(t) {
			lines = append(lines, line(field, mention))
		}
		sort.Strings(lines)
		for _, text := range lines {
			if _, err := fmt.Fprintln(out, text); err != nil {
				return err
			}
		}
	}
	return nil
}

// fields lists the JSON fields of a struct, those of inlined structs included.
func fields(t reflect.Type) []reflect.StructField {
	var all []reflect.StructField
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name == "" && strings.Contains(options, "inline"):
			all = append(all, fields(field.Type)...)
		default:
			all = append(all, field)
		}
	}
	return all
}

func isScalar(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[resource.Quantity](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[intstr.IntOrString](),
		reflect.TypeFor[metav1.FieldsV1]():
		return true
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return false
	case reflect.Slice:
		return t.Elem().Kind() == reflect.Uint8
	}
	return true
}

func line(field reflect.StructField, mention func(reflect.Type) string) string {
	name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
	t := field.Type
	pointer := t.Kind() == reflect.Pointer
	if pointer {
		t = t.Elem()
	}
	text := name
	switch {
	case isScalar(t):
		text += " scalar"
	case t.Kind() == reflect.Struct:
		text += " struct=" + mention(t)
	case t.Kind() == reflect.Map && isScalar(t.Elem()):
		text += " map"
	case t.Kind() == reflect.Slice && isScalar(t.Elem()):
		text += " list"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		text += " list=" + mention(t.Elem())
	default:
		panic(fmt.Sprintf("field %s of type %s", field.Name, t))
	}
	if strings.Contains(field.Tag.Get("patchStrategy"), "merge") && t.Kind() == reflect.Slice {
		text += " merge"
		if key := field.Tag.Get("patchMergeKey"); key != "" {
			text += "=" + key
		}
	}
	if !pointer && strings.Contains(options, "omitempty") && t.Kind() != reflect.Struct {
		text += " zero"
	}
	return text
}
