package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// filler makes random values of API types. Base and patch choose the same members of unions, because merging different
// ones is where isvc-core differs on purpose.
type filler struct {
	random *rand.Rand
	// density is the chance in percent that a field is set.
	density int
}

// keys are the values of merge keys: few, so that base and patch meet.
var keys = []string{"a", "b", "c", "d", "e"}

func (f filler) pick(values []string) string { return values[f.random.Intn(len(values))] }

func (f filler) value(t reflect.Type, field string, depth int) reflect.Value {
	value := reflect.New(t).Elem()
	switch t {
	case reflect.TypeFor[resource.Quantity]():
		value.Set(reflect.ValueOf(resource.MustParse(f.pick([]string{"1", "500m", "2Gi", "64Mi"}))))
		return value
	case reflect.TypeFor[intstr.IntOrString]():
		if f.random.Intn(2) == 0 {
			value.Set(reflect.ValueOf(intstr.FromInt32(int32(f.random.Intn(3)))))
		} else {
			value.Set(reflect.ValueOf(intstr.FromString(f.pick(keys))))
		}
		return value
	case reflect.TypeFor[metav1.Time](), reflect.TypeFor[metav1.FieldsV1](), reflect.TypeFor[metav1.ObjectMeta]():
		return value
	}
	switch t.Kind() {
	case reflect.Pointer:
		inner := f.value(t.Elem(), field, depth)
		value.Set(reflect.New(t.Elem()))
		value.Elem().Set(inner)
	case reflect.String:
		value.SetString(f.pick([]string{"", "x", "y", "z"}))
	case reflect.Bool:
		value.SetBool(f.random.Intn(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		value.SetInt(int64(f.random.Intn(3)))
	case reflect.Map:
		value.Set(reflect.MakeMap(t))
		for range f.random.Intn(3) {
			value.SetMapIndex(reflect.ValueOf(f.pick(keys)).Convert(t.Key()), f.value(t.Elem(), field, depth+1))
		}
	case reflect.Slice:
		length := f.random.Intn(5)
		if depth > 3 {
			length = f.random.Intn(2)
		}
		for range length {
			value.Set(reflect.Append(value, f.value(t.Elem(), field, depth+1)))
		}
	case reflect.Struct:
		f.fill(value, depth)
	default:
		panic(t.String())
	}
	return value
}

func (f filler) fill(value reflect.Value, depth int) {
	t := value.Type()
	for i := range t.NumField() {
		field := t.Field(i)
		if union[field.Type] {
			continue
		}
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name != "" && mergeKeys[t.Name()] == name {
			if field.Type.Kind() == reflect.String {
				value.Field(i).SetString(f.pick(keys))
			} else {
				value.Field(i).SetInt(int64(8080 + f.random.Intn(5)))
			}
			continue
		}
		if f.random.Intn(100) < f.density {
			value.Field(i).Set(f.value(field.Type, name, depth+1))
		}
	}
	choose(f, value, depth)
}

// mergeKeys are the fields that elements of merged lists must have.
var mergeKeys = map[string]string{
	"EnvVar": "name", "ContainerPort": "containerPort", "VolumeMount": "mountPath", "VolumeDevice": "devicePath",
	"Volume": "name", "LocalObjectReference": "name", "PodResourceClaim": "name", "Container": "name",
	"EphemeralContainerCommon": "name", "HostAlias": "ip", "TopologySpreadConstraint": "topologyKey",
	"PodSchedulingGate": "name", "OwnerReference": "uid",
}

// union marks embedded structs that choose fills.
var union = map[reflect.Type]bool{
	reflect.TypeFor[corev1.VolumeSource](): true, reflect.TypeFor[corev1.ProbeHandler](): true,
}

// choose sets members of unions, always the same ones for the same place.
func choose(f filler, value reflect.Value, depth int) {
	switch object := value.Addr().Interface().(type) {
	case *corev1.Probe:
		object.HTTPGet = f.value(reflect.TypeFor[*corev1.HTTPGetAction](), "", depth+1).Interface().(*corev1.HTTPGetAction)
	case *corev1.LifecycleHandler:
		*object = corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{f.pick(keys)}}}
	case *corev1.EnvVarSource:
		*object = corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: f.pick(keys)}}
	case *corev1.SeccompProfile:
		object.Type = corev1.SeccompProfileTypeLocalhost
	case *corev1.AppArmorProfile:
		object.Type = corev1.AppArmorProfileTypeLocalhost
	case *corev1.Volume:
		source := reflect.ValueOf(&object.VolumeSource).Elem()
		member := map[string]string{
			"a": "EmptyDir", "b": "ConfigMap", "c": "Projected", "d": "PersistentVolumeClaim", "e": "CSI",
		}[object.Name]
		field := source.FieldByName(member)
		field.Set(f.value(field.Type(), "", depth+1))
	}
}

// merges writes one JSON object a line: kind, base, patch, merged.
func merges(out io.Writer) error {
	random := rand.New(rand.NewSource(1))
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	write := func(kind string, base, patch []byte, of any) error {
		merged, err := strategicpatch.StrategicMergePatch(base, patch, of)
		if err != nil {
			return fmt.Errorf("%s with %s: %w", base, patch, err)
		}
		return encoder.Encode(map[string]any{
			"kind": kind, "base": json.RawMessage(base), "patch": json.RawMessage(patch), "merged": json.RawMessage(merged),
		})
	}
	for round := range 260 {
		density := []int{8, 15, 25}[round%3]
		fill := filler{random: random, density: density}
		containers := [2]*corev1.Container{new(corev1.Container), new(corev1.Container)}
		for _, container := range containers {
			fill.fill(reflect.ValueOf(container).Elem(), 0)
		}
		if err := write("Container", marshal(containers[0]), marshal(containers[1]), corev1.Container{}); err != nil {
			return err
		}
	}
	for range 110 {
		fill := filler{random: random, density: 12}
		pods := [2]*corev1.PodSpec{new(corev1.PodSpec), new(corev1.PodSpec)}
		for _, pod := range pods {
			fill.fill(reflect.ValueOf(pod).Elem(), 0)
			pod.Containers = nil
			pod.EphemeralContainers = nil
			if len(pod.InitContainers) > 1 {
				pod.InitContainers = pod.InitContainers[:1]
			}
		}
		if err := write("PodSpec", marshal(pods[0]), marshal(pods[1]), corev1.PodSpec{}); err != nil {
			return err
		}
	}
	// The order of merged lists, with duplicates, in every small combination that chance may miss.
	for range 150 {
		list := func(values int) []corev1.EnvVar {
			var env []corev1.EnvVar
			for range random.Intn(values) {
				env = append(env, corev1.EnvVar{Name: keys[random.Intn(len(keys))], Value: fmt.Sprint(random.Intn(9) + 1)})
			}
			return env
		}
		base, patch := corev1.Container{Name: "a", Env: list(6)}, corev1.Container{Name: "a", Env: list(6)}
		if err := write("Container", marshal(base), marshal(patch), corev1.Container{}); err != nil {
			return err
		}
	}
	// Lists of scalars that merge occur in metadata only.
	for range 20 {
		list := func() []string {
			var values []string
			for range 1 + random.Intn(4) {
				values = append(values, keys[random.Intn(len(keys))])
			}
			return values
		}
		base, patch := metav1.ObjectMeta{Finalizers: list()}, metav1.ObjectMeta{Finalizers: list()}
		if err := write("ObjectMeta", marshal(base), marshal(patch), metav1.ObjectMeta{}); err != nil {
			return err
		}
	}
	return nil
}

// marshal leaves out what the Go types write although it is empty.
func marshal(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		panic(err)
	}
	if resources, ok := object["resources"].(map[string]any); ok && len(resources) == 0 {
		delete(object, "resources")
	}
	if containers, present := object["containers"]; present && containers == nil {
		delete(object, "containers")
	}
	text, err = json.Marshal(object)
	if err != nil {
		panic(err)
	}
	return text
}
