// SPDX-License-Identifier: Apache-2.0
#include "colo/handlers/bitmap_mapping.h"

#include "colo/handlers/names.h"

#include <set>
#include <string>

namespace colo {
namespace {

constexpr std::size_t kMaxAlias = 255;
constexpr std::size_t kMaxNodeName = 31;
constexpr std::size_t kMaxBitmapName = 1023;

Error invalid(const std::string& text)
{
    return make_error(Errc::invalid, "Invalid mapping given for block-bitmap-mapping: " + text);
}

std::string longer(const char* what, const std::string& name, std::size_t limit)
{
    return "The " + std::string(what) + " '" + name + "' is longer than " + std::to_string(limit) + " bytes";
}

Result<void> check_bitmaps(const schema::BitmapMigrationNodeAlias& node)
{
    std::set<std::string> names;
    std::set<std::string> aliases;
    for (const auto& bitmap : node.bitmaps) {
        if (bitmap.alias.size() > kMaxAlias) return invalid(longer("bitmap alias", bitmap.alias, kMaxAlias));
        if (bitmap.name.size() > kMaxBitmapName) return invalid(longer("bitmap name", bitmap.name, kMaxBitmapName));
        if (!names.insert(bitmap.name).second)
            return invalid("The bitmap '" + node.node_name + "'/'" + bitmap.name + "' is mapped twice");
        if (!aliases.insert(bitmap.alias).second)
            return invalid("The bitmap alias '" + node.alias + "'/'" + bitmap.alias + "' is used twice");
    }
    return {};
}

}  // namespace

Result<void> check_bitmap_mapping(const std::vector<schema::BitmapMigrationNodeAlias>& mapping)
{
    std::set<std::string> names;
    std::set<std::string> aliases;
    for (const auto& node : mapping) {
        if (!well_formed(node.alias)) return invalid("The node alias '" + node.alias + "' is not well-formed");
        if (node.alias.size() > kMaxAlias) return invalid(longer("node alias", node.alias, kMaxAlias));
        if (node.node_name.size() > kMaxNodeName) return invalid(longer("node name", node.node_name, kMaxNodeName));
        if (!names.insert(node.node_name).second)
            return invalid("The node name '" + node.node_name + "' is mapped twice");
        if (!aliases.insert(node.alias).second) return invalid("The node alias '" + node.alias + "' is used twice");
        if (auto checked = check_bitmaps(node); !checked) return checked;
    }
    return {};
}

}  // namespace colo
