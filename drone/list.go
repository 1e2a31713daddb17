package drone

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// split takes a list apart. Drone joins lists with commas and escapes nothing, so
// that a part of build arguments or labels that is no KEY=VALUE belongs to the
// one before; a rule of tags has commas of its own and stands alone. Lists of maps,
// and maps, are JSON.
func split(setting, text string) (list []string, err error) {
	if all, isJSON, err := fromJSON(text); isJSON {
		return all, err
	}
	for _, line := range strings.Split(text, "\n") {
		switch setting {
		case "tags":
			for i, rule := range strings.Split(","+line, ",type=") {
				if i > 0 {
					list = append(list, "type="+rule)
				} else {
					list = append(list, strings.Split(strings.Trim(rule, ","), ",")...)
				}
			}
		case "secrets", "outputs", "cache-from", "cache-to", "flavor":
			list = append(list, line)
		case "build-args", "labels", "annotations", "registry-client-certs":
			for i, part := range strings.Split(line, ",") {
				if i > 0 && !strings.Contains(part, "=") {
					list[len(list)-1] += "," + part
				} else {
					list = append(list, part)
				}
			}
		default:
			list = append(list, strings.Split(line, ",")...)
		}
	}
	return list, nil
}

// bracketed begins with an IPv6 address, and is no JSON.
var bracketed = regexp.MustCompile(`^\[[0-9a-fA-F]*:[0-9a-fA-F:.]*\]`)

// fromJSON reads a JSON list of plain values, or an object, of which each member is
// KEY=VALUE. The error says nothing of the text, which may have secrets.
func fromJSON(text string) (list []string, isJSON bool, err error) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "[") && !strings.HasPrefix(text, "{") || bracketed.MatchString(text) || strings.HasPrefix(text, "{{") {
		return nil, false, nil
	}
	var value any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil || decoder.More() {
		return nil, true, errors.New("it begins like JSON, and is not: write a JSON list or object, or a list separated by commas")
	}
	add := func(prefix string, v any) error {
		switch v := v.(type) {
		case string, json.Number, bool:
			list = append(list, prefix+fmt.Sprint(v))
		case nil:
		default:
			return errors.New("a JSON list or object of plain values is needed, and something nested is in it")
		}
		return nil
	}
	switch value := value.(type) {
	case []any:
		for _, v := range value {
			if err := add("", v); err != nil {
				return nil, true, err
			}
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(value)) {
			if err := add(k+"=", value[k]); err != nil {
				return nil, true, err
			}
		}
	}
	return list, true, nil
}
