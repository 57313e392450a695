// SPDX-License-Identifier: Apache-2.0
#pragma once

// A xenstore of a few nodes.

#include "xen/store.h"

#include <cerrno>
#include <map>
#include <set>

namespace colo::test {

class FakeStore final : public xen::Store {
public:
    std::map<std::string, std::string> nodes;
    bool broken = false;

    Result<std::optional<std::string>> read(const std::string& path) override
    {
        if (broken) return errno_error("xenstore", EPIPE);
        const auto found = nodes.find(path);
        if (found == nodes.end()) return std::optional<std::string>();
        return std::optional(found->second);
    }
    Result<std::vector<std::string>> list(const std::string& path) override
    {
        if (broken) return errno_error("xenstore", EPIPE);
        std::set<std::string> names;
        for (const auto& [node, value] : nodes)
            if (node.rfind(path + "/", 0) == 0) {
                const std::string rest = node.substr(path.size() + 1);
                names.insert(rest.substr(0, rest.find('/')));
            }
        return std::vector<std::string>(names.begin(), names.end());
    }
};

}  // namespace colo::test
